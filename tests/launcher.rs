//! `fmi run`: what a user sees of it.

#![cfg(feature = "cli")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// No run takes longer: a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// The command. Whatever a test waits for, an alarm ends it when the patience
/// is over: it survives the exec, and the ranks do not outlive their launcher.
fn fmi() -> Command {
    with_alarm(Command::new(env!("CARGO_BIN_EXE_fmi")))
}

fn with_alarm(mut command: Command) -> Command {
    // SAFETY: alarm is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::alarm(PATIENCE.as_secs() as u32);
            Ok(())
        });
    }
    command
}

/// `fmi run` with `options`, each rank a shell with `script`.
fn launcher(options: &[&str], script: &str) -> Command {
    let mut command = fmi();
    command.arg("run").args(options).args(["--", "sh", "-c", script]).stdin(Stdio::null());
    command
}

/// Runs a command to its end, and takes how long that took.
fn finish(command: &mut Command) -> (Output, Duration) {
    let start = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("fmi starts");
    let pid = child.id() as i32;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(PATIENCE * 2).unwrap_or_else(|_| {
        // SAFETY: no pointers; the child is not reaped.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        panic!("fmi run hangs");
    });
    (output.expect("output"), start.elapsed())
}

fn run(options: &[&str], script: &str) -> Output {
    finish(&mut launcher(options, script)).0
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Starts a job whose ranks each print a line when they are ready; returns
/// once all have.
fn start_ready(options: &[&str], script: &str, ranks: usize) -> (Child, BufReader<impl Read>) {
    let mut child = launcher(options, script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..ranks {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("ready"), "{line}");
    }
    (child, lines)
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

fn is_alive(pid: i32) -> bool {
    // A zombie that init has not reaped yet does not count.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_line_has_its_rank_in_front() {
    let output = run(&["-n", "3"], "echo out $FMI_SIZE; echo err >&2; printf partial");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        sorted_lines(&stdout(&output)),
        ["[0] out 3", "[0] partial", "[1] out 3", "[1] partial", "[2] out 3", "[2] partial"]
    );
    assert_eq!(sorted_lines(&stderr(&output)), ["[0] err", "[1] err", "[2] err"]);
}

#[test]
fn a_single_rank_has_the_output_for_itself() {
    let output = run(&["-n", "1"], "printf 'a\\nb'; printf c >&2");
    assert_eq!((stdout(&output), stderr(&output)), ("a\nb".into(), "c".into()));
}

#[test]
fn ranks_are_told_all_that_they_need() {
    let script = r#"echo "$FMI_RANK $FMI_SIZE $FMI_JOB_ID $FMI_RENDEZVOUS ${#FMI_SECRET}""#;
    let output = finish(launcher(&["-n", "2"], script).env("FMI_RANK", "77").env("FMI_SECRET", "outer")).0;
    let text = stdout(&output);
    let lines = sorted_lines(&text);
    let fields: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    assert_eq!(fields[0][..3], ["[0]", "0", "2"]);
    assert_eq!(fields[1][..3], ["[1]", "1", "2"]);
    assert_eq!(fields[0][3..], fields[1][3..], "job id, address and secret are those of the job");
    assert_eq!(fields[0][3].len(), 32);
    assert!(fields[0][4].starts_with("127.0.0.1:"));
    assert_eq!(fields[0][5], "64", "256 bits in hex");
    assert_ne!(
        stdout(&run(&["-n", "1"], "echo $FMI_JOB_ID")),
        stdout(&run(&["-n", "1"], "echo $FMI_JOB_ID"))
    );
}

#[test]
fn rank_0_reads_standard_input_and_the_others_nothing() {
    let mut child =
        launcher(&["-n", "3"], "cat; echo end").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(sorted_lines(&stdout(&output)), ["[0] end", "[0] hello", "[1] end", "[2] end"]);
}

#[test]
fn binary_output_is_passed_on_as_it_is() {
    let output = run(&["-n", "2"], r"test $FMI_RANK = 0 && printf 'a\000\377\nb\r\n'; true");
    assert_eq!(output.stdout, b"[0] a\0\xff\n[0] b\r\n");
}

#[test]
fn a_flood_of_output_arrives_whole() {
    // 300,000 lines of 5 to 10 bytes from each of three ranks, some 7 MB, and
    // as much on standard error.
    let script = "seq 1 300000; seq 300000 600000 >&2";
    let (output, _) = finish(&mut launcher(&["-n", "3"], script));
    for (text, range) in [(stdout(&output), 1..=300_000), (stderr(&output), 300_000..=600_000)] {
        let mut next = [*range.start(); 3];
        for line in text.lines() {
            let (rank, number) = line[1..].split_once("] ").expect("a whole line");
            let next = &mut next[rank.parse::<usize>().unwrap()];
            assert_eq!(number.parse(), Ok(*next));
            *next += 1;
        }
        assert_eq!(next, [range.end() + 1; 3]);
    }
}

#[test]
fn a_reader_that_is_slow_loses_nothing_and_one_that_goes_ends_the_job() {
    let mut child =
        launcher(&["-n", "2", "--grace", "100ms"], "seq 1 200000").stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    // Long after the ranks could have ended, and the grace passed.
    std::thread::sleep(Duration::from_secs(1));
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 400_000);
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let mut child =
        launcher(&["-n", "2"], "exec yes").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(128 + libc::SIGPIPE));
}

#[test]
fn the_exit_code_is_that_of_the_first_failure() {
    let script = "test $FMI_RANK = 1 && exit 7; sleep 0.3; exit 9";
    let output = run(&["-n", "3"], script);
    assert_eq!(output.status.code(), Some(7));
    assert!(stderr(&output).starts_with("fmi run: rank 1 exited with code 7\n"), "{}", stderr(&output));

    let output = run(&["-n", "3"], "test $FMI_RANK = 2 && kill -9 $$; sleep 0.3");
    assert_eq!(output.status.code(), Some(128 + 9));
    assert_eq!(stderr(&output), "fmi run: rank 2 was killed by signal 9 (SIGKILL)\n");
}

#[test]
fn the_others_may_report_within_the_grace() {
    let script = "test $FMI_RANK = 1 && exit 1; sleep 0.3; echo lost rank 1; exit 2";
    let (output, _) = finish(&mut launcher(&["-n", "2", "--grace", "5s"], script));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "[0] lost rank 1\n");
}

#[test]
fn after_the_grace_the_others_are_ended() {
    let script = "test $FMI_RANK = 0 && exit 3; trap 'echo told; exit 0' TERM; while :; do sleep 0.05; done";
    let (output, took) = finish(&mut launcher(&["-n", "3", "--grace", "300ms"], script));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(sorted_lines(&stdout(&output)), ["[1] told", "[2] told"]);
    assert!(stderr(&output).contains("fmi run: sending SIGTERM to ranks 1, 2\n"), "{}", stderr(&output));
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn who_ignores_sigterm_is_killed_with_all_that_it_started() {
    let script = "test $FMI_RANK = 0 && exit 3; trap '' TERM; sleep 60 & echo $!; wait; sleep 60";
    let (output, took) = finish(&mut launcher(&["-n", "2", "--grace", "300ms"], script));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("fmi run: sending SIGKILL to rank 1\n"), "{}", stderr(&output));
    assert!(stderr(&output).contains("fmi run: rank 1 was killed by signal 9 (SIGKILL)\n"));
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(5), "{took:?}");
    let grandchild = stdout(&output).trim().strip_prefix("[1] ").unwrap().parse().unwrap();
    wait_until("its children end with it", || !is_alive(grandchild));
}

#[test]
fn keep_going_lets_the_others_end_by_themselves() {
    let script = "test $FMI_RANK = 0 && exit 3; sleep 1; echo done";
    let (output, _) = finish(&mut launcher(&["-n", "2", "--grace", "50ms", "--keep-going"], script));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stdout(&output), "[1] done\n");
}

#[test]
fn a_timeout_ends_the_job() {
    let (output, took) = finish(&mut launcher(&["-n", "2", "--timeout", "300ms"], "exec sleep 60"));
    assert_eq!(output.status.code(), Some(124));
    assert!(
        stderr(&output).starts_with("fmi run: the job has not ended within 300ms\n"),
        "{}",
        stderr(&output)
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn signals_are_passed_on_to_all_ranks() {
    for (name, number) in [
        ("INT", libc::SIGINT),
        ("TERM", libc::SIGTERM),
        ("HUP", libc::SIGHUP),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
    ] {
        let script = format!("trap 'echo got; exit 0' {name}; echo ready; while :; do sleep 0.05; done");
        let (mut child, mut lines) = start_ready(&["-n", "3"], &script, 3);
        signal(child.id(), number);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert_eq!(sorted_lines(&rest), ["[0] got", "[1] got", "[2] got"], "SIG{name}");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_job_that_dies_of_a_signal_says_so() {
    let (mut child, _) = start_ready(&["-n", "2"], "echo ready; exec sleep 60", 2);
    signal(child.id(), libc::SIGINT);
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(128 + libc::SIGINT), None));
}

#[test]
fn no_rank_outlives_a_launcher_that_is_killed() {
    let script = "echo ready $$; exec sleep 60";
    let mut child = launcher(&["-n", "3"], script).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut pids: Vec<i32> = Vec::new();
    for _ in 0..3 {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        pids.push(line.trim().rsplit(' ').next().unwrap().parse().unwrap());
    }
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    signal(child.id(), libc::SIGKILL);
    child.wait().unwrap();
    wait_until("all ranks are gone", || pids.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn what_a_rank_leaves_behind_is_ended() {
    // One that holds the output, and one that does not.
    let script = "sleep 60 & echo $!; sleep 60 >/dev/null 2>&1 & echo $!";
    let (output, took) = finish(&mut launcher(&["-n", "2", "--grace", "300ms"], script));
    assert_eq!(output.status.code(), Some(0));
    assert!(took < Duration::from_secs(3), "{took:?}");
    let text = stdout(&output);
    let pids: Vec<i32> = text.lines().map(|line| line[4..].parse().unwrap()).collect();
    assert_eq!(pids.len(), 4);
    wait_until("nothing is left", || pids.iter().all(|pid| !is_alive(*pid)));
}

/// A daemon in a session of its own is not ours to end, nor to wait for.
#[test]
fn a_daemon_that_holds_the_output_is_not_waited_for() {
    let script = "setsid sleep 15 & echo $!";
    let (output, took) = finish(&mut launcher(&["-n", "2", "--grace", "200ms"], script));
    assert_eq!(output.status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    for line in stdout(&output).lines() {
        signal(line[4..].parse().unwrap(), libc::SIGKILL);
    }
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let start = |program: &str| {
        let mut command = fmi();
        finish(command.args(["run", "-n", "2", "--", program]).stdin(Stdio::null())).0
    };
    let output = start("./no-such-program");
    assert_eq!(output.status.code(), Some(127));
    assert!(stderr(&output).starts_with("fmi run: cannot start ./no-such-program: "), "{}", stderr(&output));
    assert_eq!(start("/etc/passwd").status.code(), Some(126));
    assert_eq!(start("/").status.code(), Some(126));
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for arguments in [
        &["run", "--", "true"][..],
        &["run", "-n", "0", "--", "true"],
        &["run", "-n", "2"],
        &["run", "-n", "2", "--grace", "soon", "--", "true"],
        &["serve", "--listen", "nonsense"],
        &["serve", "--log", "loud"],
    ] {
        let output = fmi().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

/// The state of a process that a nohup, or a parent without interest in its
/// children, leaves behind.
#[test]
fn inherited_dispositions_do_not_matter() {
    let fmi = env!("CARGO_BIN_EXE_fmi");
    let script = format!("trap '' HUP CHLD; exec {fmi} run -n 2 -- sh -c 'exit 5'");
    let output = finish(with_alarm(Command::new("sh")).args(["-c", &script]).stdin(Stdio::null())).0;
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn serve_prints_its_address_and_ends_in_order() {
    for number in [libc::SIGTERM, libc::SIGINT] {
        let mut child =
            fmi().args(["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("fmi serve: listening on ").unwrap();
        std::net::TcpStream::connect(address).unwrap();
        signal(child.id(), number);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn serve_wants_a_secret_to_require_it() {
    let mut command = fmi();
    command.args(["serve", "--listen", "127.0.0.1:0", "--require-secret"]).env_remove("FMI_SECRET");
    let output = finish(&mut command).0;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("FMI_SECRET"), "{}", stderr(&output));
}
