//! What a user of [`Config`] sees, source by source.

use std::ffi::OsString;
use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;

use super::schema::{Default as DefaultValue, Kind, ROWS, Row};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::model::{DirectParameters, Parameters, RedisParameters, S3Parameters, ServerParameters, Waiting};

type Variables<'a> = &'a [(&'a str, &'a str)];

/// The shape of the original's file: everything a string, all channels, the whole model.
const ORIGINAL: &str = r#"{
  "backends": {
    "S3": { "enabled": "true", "bucket_name": "a-bucket", "s3_region": "eu-central-1", "timeout": "50", "max_timeout": "20000" },
    "Redis": { "enabled": "false", "host": "redis.example", "port": "6379", "timeout": "1", "max_timeout": "10000" },
    "Direct": { "host": "punch.example", "port": "10000", "max_timeout": "1000" }
  },
  "model": {
    "FaaS": { "gib_second_price": "0.0000166667" },
    "S3": { "bandwidth": "50.0", "overhead": "40.4", "transfer_price": "0.0", "download_price": "0.00000043", "upload_price": "5.4e-6" },
    "Redis": { "bandwidth_single": "100.0", "bandwidth_multiple": "400.0", "overhead": "5.2", "transfer_price": "0.0", "instance_price": "0.0038", "requests_per_hour": "1000", "include_infrastructure_costs": "true" },
    "Direct": { "bandwidth": "400.0", "overhead": "0.34", "transfer_price": "0.0", "vm_price": "0.0134", "requests_per_hour": "1000", "include_infrastructure_costs": "true" }
  }
}"#;

fn with<T>(variables: Variables<'_>, ask: impl FnOnce(Environment<'_>) -> T) -> T {
    ask(Environment {
        variable: &|name| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, value)| OsString::from(value))
        },
        cgroup_memory: &|| None,
    })
}

fn try_settings(config: &Config, variables: Variables<'_>) -> Result<Settings> {
    with(variables, |environment| Settings::new(config, environment))
}

fn settings(config: &Config, variables: Variables<'_>) -> Settings {
    try_settings(config, variables).unwrap()
}

fn parsed(json: &str) -> Config {
    let mut config = Config::new();
    config.parse(json).unwrap();
    config
}

fn parse_error(json: &str) -> Error {
    Config::new().parse(json).unwrap_err()
}

fn direct(config: &Config, variables: Variables<'_>) -> DirectSettings {
    settings(config, variables).direct.unwrap()
}

fn visited(config: &Config, variables: Variables<'_>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    with(variables, |environment| {
        config.each_with(environment, |key, value| {
            pairs.push((key.to_owned(), value.to_owned()));
            Ok(())
        })
    })
    .unwrap();
    pairs
}

fn visited_value(config: &Config, variables: Variables<'_>, key: &str) -> Option<String> {
    visited(config, variables).into_iter().find(|(own, _)| own == key).map(|(_, value)| value)
}

fn warnings(config: &Config) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let mut config = config.clone();
    let sink = Arc::clone(&lines);
    config.set_log(LogLevel::Warn, move |_, text| sink.lock().unwrap().push(text.to_owned()));
    settings(&config, &[]);
    let lines = lines.lock().unwrap();
    lines.clone()
}

#[test]
fn nothing_configured_means_direct_on_this_host() {
    let settings = settings(&Config::new(), &[]);
    assert_eq!(
        settings.direct,
        Some(DirectSettings {
            host: "127.0.0.1".to_owned(),
            port: 10000,
            max_timeout: None,
            punch_timeout: None,
            protocol: RendezvousProtocol::Auto,
            congestion: None,
            secret: None
        })
    );
    assert_eq!((settings.rank, settings.size, settings.job_id), (None, None, None));
    assert!(settings.memory.is_none());
    assert_eq!(settings.timeout, None);
    assert_eq!(settings.wait, WaitMode::Auto);
    assert_eq!(settings.unexpected_limit, 256 << 20);
    assert_eq!(settings.faas_memory_mib, 128);
    assert!(settings.interrupt.is_none());
}

#[test]
fn the_originals_file_loads_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fmi.json");
    std::fs::write(&path, ORIGINAL).unwrap();
    let mut config = Config::new();
    config.load(&path).unwrap();
    assert_eq!(warnings(&config), [""; 0]);

    let found = direct(&config, &[]);
    assert_eq!((found.host.as_str(), found.port), ("punch.example", 10000));
    assert_eq!(found.max_timeout, Some(Duration::from_secs(1)));
    for (key, value) in [
        ("backends.S3.enabled", "true"),
        ("backends.Redis.enabled", "false"),
        ("backends.Direct.enabled", "true"),
        ("backends.S3.bucket_name", "a-bucket"),
        ("model.S3.bandwidth", "50.0"),
        ("model.S3.upload_price", "5.4e-6"),
    ] {
        assert_eq!(visited_value(&config, &[], key).as_deref(), Some(value), "{key}");
    }
}

#[test]
fn the_defaults_of_the_model_are_the_originals_figures() {
    let server = |price| ServerParameters { price, requests_per_hour: 1000.0, is_included: true };
    let expected = Parameters {
        gib_second_price: 1.66667e-5,
        direct: DirectParameters {
            bandwidth: 400.0,
            overhead: 0.34,
            transfer_price: 0.0,
            server: server(0.0134),
        },
        redis: RedisParameters {
            bandwidth_single: 100.0,
            bandwidth_multiple: 400.0,
            overhead: 5.2,
            transfer_price: 0.0,
            server: server(0.0038),
        },
        s3: S3Parameters {
            bandwidth: 50.0,
            overhead: 40.4,
            transfer_price: 0.0,
            download_price: 4.3e-7,
            upload_price: 5.4e-6,
            waiting: Waiting::POLLING,
        },
    };
    assert_eq!(settings(&Config::new(), &[]).model, expected);
    assert_eq!(settings(&parsed(ORIGINAL), &[]).model, expected);
}

#[test]
fn every_parameter_of_the_model_comes_from_its_key() {
    let model = parsed(
        r#"{"model": {
            "FaaS": { "gib_second_price": 1 },
            "Direct": { "bandwidth": 2, "overhead": 3, "transfer_price": 4, "vm_price": 5,
                        "requests_per_hour": 6, "include_infrastructure_costs": "false" },
            "Redis": { "bandwidth_single": 7, "bandwidth_multiple": 8, "overhead": 9, "transfer_price": 10,
                       "instance_price": 11, "requests_per_hour": 12, "include_infrastructure_costs": false },
            "S3": { "bandwidth": 13, "overhead": 14, "transfer_price": 15, "download_price": 16 } }}"#,
    );
    let server = |price, requests_per_hour| ServerParameters { price, requests_per_hour, is_included: false };
    assert_eq!(
        settings(&model, &[("FMI_MODEL_S3_UPLOAD_PRICE", "17")]).model,
        Parameters {
            gib_second_price: 1.0,
            direct: DirectParameters {
                bandwidth: 2.0,
                overhead: 3.0,
                transfer_price: 4.0,
                server: server(5.0, 6.0)
            },
            redis: RedisParameters {
                bandwidth_single: 7.0,
                bandwidth_multiple: 8.0,
                overhead: 9.0,
                transfer_price: 10.0,
                server: server(11.0, 12.0),
            },
            s3: S3Parameters {
                bandwidth: 13.0,
                overhead: 14.0,
                transfer_price: 15.0,
                download_price: 16.0,
                upload_price: 17.0,
                waiting: Waiting::POLLING,
            },
        }
    );
}

#[test]
fn proper_types_mean_what_strings_mean() {
    let mut proper = ORIGINAL.to_owned();
    for number in ["6379", "10000", "0.34", "5.4e-6", "true", "false", "1000"] {
        proper = proper.replace(&format!("\"{number}\""), number);
    }
    let (strings, proper) = (parsed(ORIGINAL), parsed(&proper));
    assert_eq!(visited(&strings, &[]), visited(&proper, &[]));
    assert_eq!(settings(&strings, &[]).fingerprint, settings(&proper, &[]).fingerprint);
}

#[test]
fn set_beats_environment_beats_file_beats_default() {
    let key = "backends.Direct.congestion";
    let file = r#"{"backends": {"Direct": {"congestion": "file"}}}"#;
    let environment: Variables<'_> = &[("FMI_TCP_CONGESTION", "environment")];
    let congestion = |config: &Config, variables| direct(config, variables).congestion;

    assert_eq!(congestion(&Config::new(), &[]), None);
    assert_eq!(congestion(&parsed(file), &[]).unwrap(), "file");
    assert_eq!(congestion(&parsed(file), environment).unwrap(), "environment");
    let mut set_last = parsed(file);
    set_last.set(key, "set").unwrap();
    assert_eq!(congestion(&set_last, environment).unwrap(), "set");
    let mut set_first = Config::new();
    set_first.set(key, "set").unwrap();
    set_first.parse(file).unwrap();
    assert_eq!(congestion(&set_first, environment).unwrap(), "set");
    assert_eq!(congestion(&parsed(file), &[("FMI_TCP_CONGESTION", "")]).unwrap(), "file");
}

#[test]
fn a_later_file_replaces_key_by_key() {
    let mut config = parsed(r#"{"job_id": "a", "backends": {"Direct": {"host": "one", "port": 1}}}"#);
    config.parse(r#"{"backends": {"Direct": {"host": "two"}, "Memory": {}}}"#).unwrap();
    let settings = settings(&config, &[]);
    let direct = settings.direct.unwrap();
    assert_eq!((direct.host.as_str(), direct.port), ("two", 1));
    assert_eq!(settings.job_id.as_deref(), Some("a"));
    assert!(settings.memory.is_some());
}

#[test]
fn a_refused_source_changes_nothing() {
    let mut config = parsed(r#"{"job_id": "a"}"#);
    config.parse(r#"{"job_id": "b", "wait": "fast"}"#).unwrap_err();
    config.set("job_id", "").unwrap_err();
    assert_eq!(settings(&config, &[]).job_id.as_deref(), Some("a"));
}

#[test]
fn every_setting_has_its_variable() {
    let settings = settings(
        &Config::new(),
        &[
            ("FMI_RANK", "1"),
            ("FMI_SIZE", "2"),
            ("FMI_JOB_ID", "42"),
            ("FMI_TIMEOUT_MS", "5"),
            ("FMI_WAIT", "park"),
            ("FMI_UNEXPECTED_LIMIT", "0"),
            ("FMI_FAAS_MEMORY_MIB", "2048"),
            ("FMI_RENDEZVOUS", "[::1]:7"),
            ("FMI_BACKENDS_DIRECT_MAX_TIMEOUT", "6"),
            ("FMI_TCP_CONGESTION", "system"),
            ("FMI_SECRET", "0123456789abcdef"),
            ("FMI_BACKENDS_MEMORY_ENABLED", "true"),
        ],
    );
    assert_eq!((settings.rank, settings.size), (Some(1), Some(2)));
    assert_eq!(settings.job_id.as_deref(), Some("42"));
    assert_eq!(settings.timeout, Some(Duration::from_millis(5)));
    assert_eq!(settings.wait, WaitMode::Park);
    assert_eq!(settings.unexpected_limit, 0);
    assert_eq!(settings.faas_memory_mib, 2048);
    assert!(settings.memory.is_some());
    assert_eq!(
        settings.direct,
        Some(DirectSettings {
            host: "::1".to_owned(),
            port: 7,
            max_timeout: Some(Duration::from_millis(6)),
            punch_timeout: None,
            protocol: RendezvousProtocol::Auto,
            congestion: Some("system".to_owned()),
            secret: Some(b"0123456789abcdef".to_vec()),
        })
    );
}

#[test]
fn the_rendezvous_variable_overrides_host_and_port() {
    let mut config = parsed(r#"{"backends": {"Direct": {"host": "file", "port": 9}}}"#);
    let address = |config: &Config, text: &str| {
        let direct = direct(config, &[("FMI_RENDEZVOUS", text)]);
        (direct.host, direct.port)
    };
    assert_eq!(address(&config, "environment:8"), ("environment".to_owned(), 8));
    assert_eq!(address(&config, "environment"), ("environment".to_owned(), 10000));
    config.set("backends.Direct.host", "set").unwrap();
    assert_eq!(address(&config, "environment:8"), ("set".to_owned(), 8));
}

#[test]
fn channels_are_enabled_by_their_sections() {
    for (json, direct, memory) in [
        ("{}", true, false),
        (r#"{"model": {}}"#, true, false),
        (r#"{"backends": {}}"#, false, false),
        (r#"{"backends": {"Redis": {}}}"#, false, false),
        (r#"{"backends": {"Direct": {}}}"#, true, false),
        (r#"{"backends": {"Memory": {}}}"#, false, true),
        (r#"{"backends": {"Memory": {"enabled": false}, "Direct": {"enabled": "true"}}}"#, true, false),
        (r#"{"backends": {"Direct": {"enabled": "false"}}}"#, false, false),
        (r#"{"backends": {"mine": {"x": 1}}}"#, false, false),
    ] {
        let settings = settings(&parsed(json), &[]);
        assert_eq!((settings.direct.is_some(), settings.memory.is_some()), (direct, memory), "{json}");
    }
    let mut config = parsed(r#"{"backends": {"Redis": {}}}"#);
    // The environment says where the server is, not whether it is wanted.
    assert_eq!(settings(&config, &[("FMI_RENDEZVOUS", "host")]).direct, None);
    config.set("backends.Direct.port", "7").unwrap();
    assert_eq!(direct(&config, &[]).port, 7);
    assert_eq!(settings(&config, &[("FMI_BACKENDS_DIRECT_ENABLED", "false")]).direct, None);
}

#[test]
fn wrong_values_name_source_key_expectation_and_finding() {
    let json = "the JSON text";
    for (text, message) in [
        (
            r#"{"backends": {"Direct": {"port": 70000}}}"#,
            "backends.Direct.port: expected an integer from 1 to 65535, found 70000",
        ),
        (
            r#"{"backends": {"Direct": {"port": "0"}}}"#,
            "backends.Direct.port: expected an integer from 1 to 65535, found \"0\"",
        ),
        (
            r#"{"backends": {"Direct": {"port": 1.5}}}"#,
            "backends.Direct.port: expected an integer from 1 to 65535, found 1.5",
        ),
        (
            r#"{"backends": {"Direct": {"host": ""}}}"#,
            "backends.Direct.host: expected text that is not empty, found \"\"",
        ),
        (
            r#"{"backends": {"Direct": {"host": 5}}}"#,
            "backends.Direct.host: expected text that is not empty, found 5",
        ),
        (
            r#"{"backends": {"mine": {"enabled": null}}}"#,
            "backends.mine.enabled: expected true or false, found null",
        ),
        (
            r#"{"backends": {"S3": {"max_timeout": 0}}}"#,
            "backends.S3.max_timeout: expected an integer from 1 to 4294967294 (ms), found 0",
        ),
        (r#"{"wait": ["spin"]}"#, "wait: expected one of auto, spin, yield, park, found an array"),
        (
            r#"{"timeout_ms": 4294967295}"#,
            "timeout_ms: expected an integer from 1 to 4294967294 (ms) or \"never\", found 4294967295",
        ),
        (
            r#"{"timeout_ms": null}"#,
            "timeout_ms: expected an integer from 1 to 4294967294 (ms) or \"never\", found null",
        ),
        (
            r#"{"model": {"Direct": {"bandwidth": 0}}}"#,
            "model.Direct.bandwidth: expected a number above 0 (MB/s of 1e6 bytes), found 0",
        ),
        (
            r#"{"model": {"FaaS": {"gib_second_price": "nan"}}}"#,
            "model.FaaS.gib_second_price: expected a number, at least 0 (USD per GiB-second), found \"nan\"",
        ),
        (r#"{"backends": []}"#, "backends: expected an object, found an array"),
        (r#"{"backends": {"Direct": true}}"#, "backends.Direct: expected an object, found true"),
        (r#"{"model": {"S3": {}, "FaaS": 1}}"#, "model.FaaS: expected an object, found 1"),
        (
            r#"{"backends": {"a.b": {}}}"#,
            "backends.a.b: expected a channel name without dots and NUL bytes, found that",
        ),
        (
            r#"{"backends.Direct.port": 1}"#,
            "backends.Direct.port: expected sections within each other, found a key with dots",
        ),
        (r#"{"job_id": "a\u0000b"}"#, "job_id: expected text without NUL bytes, found \"a\\0b\""),
        (
            r#"{"backends": {"mine": {"a\u0000b": 1}}}"#,
            "backends.mine.a\\0b: expected a key without NUL bytes, found one",
        ),
    ] {
        let error = parse_error(text);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.message(), format!("{json}: {message}"));
    }
    assert_eq!(parse_error(" [1]").message(), "the JSON text: expected an object, found an array");
}

#[test]
fn a_long_wrong_value_is_cut() {
    let error = parse_error(&format!(r#"{{"wait": "{}"}}"#, "\u{e9}".repeat(1000)));
    assert!(error.message().len() < 250, "{error}");
}

#[test]
fn wrong_variables_are_named_with_their_key() {
    for (variable, value, key) in [
        ("FMI_TIMEOUT_MS", "0", "timeout_ms"),
        ("FMI_WAIT", "fast", "wait"),
        ("FMI_LOG", "7", "log"),
        ("FMI_FAAS_MEMORY_MIB", "-1", "faas_memory_mib"),
        ("FMI_MODEL_S3_BANDWIDTH", "inf", "model.S3.bandwidth"),
    ] {
        let error = try_settings(&Config::new(), &[(variable, value)]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        let start = format!("environment variable {variable}: {key}: expected ");
        assert!(error.message().starts_with(&start), "{error}");
        assert!(error.message().ends_with(&format!("found \"{value}\"")), "{error}");
    }
}

#[test]
fn malformed_json_is_located() {
    for (text, place) in [
        ("", "line 1, column 0"),
        ("{\n  \"wait\": }", "line 2, column 11"),
        ("{} {}", "line 1, column 4"),
        ("{\"a\": 1e999}", "line 1, column 11"),
    ] {
        let error = parse_error(text);
        assert!(
            error.message().starts_with(&format!("the JSON text: malformed JSON at {place}: ")),
            "{text}: {error}"
        );
        assert_eq!(error.message().matches("column").count(), 1, "{error}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse_error(&deep).message().contains("recursion limit"));
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(parse_error(&long).message(), "the JSON text: longer than 1048576 bytes");
    // Endless, and refused all the same.
    assert_eq!(
        Config::new().load("/dev/zero").unwrap_err().message(),
        "/dev/zero: longer than 1048576 bytes"
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("fmi.json");
    let error = Config::new().load(&missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.os_errno(), libc::ENOENT);
    assert!(error.message().starts_with(missing.to_str().unwrap()), "{error}");
    assert_eq!(Config::new().load(directory.path()).unwrap_err().os_errno(), libc::EISDIR);

    std::fs::write(&missing, b"{\"a\": \"\xff\"}").unwrap();
    let error = Config::new().load(&missing).unwrap_err();
    assert!(error.message().ends_with("expected UTF-8 text, found other bytes at offset 7"), "{error}");

    std::fs::write(&missing, r#"{"wait": 1}"#).unwrap();
    let error = Config::new().load(&missing).unwrap_err();
    assert!(error.message().starts_with(&format!("{}: wait: expected ", missing.display())), "{error}");
}

#[test]
fn one_text_is_nothing_or_json_or_a_path() {
    assert!(Config::from_path_or_json("").unwrap().file.entries.is_empty());
    let config = Config::from_path_or_json(" \n{\"job_id\": \"x\"}").unwrap();
    assert_eq!(settings(&config, &[]).job_id.as_deref(), Some("x"));
    let error = Config::from_path_or_json("/nowhere/fmi.json").unwrap_err();
    assert!(error.message().starts_with("/nowhere/fmi.json: "), "{error}");
}

#[test]
fn keys_that_are_set_are_checked_at_once() {
    let mut config = Config::new();
    for (key, value, message) in [
        (
            "backends.Direct.port",
            "x",
            "backends.Direct.port: expected an integer from 1 to 65535, found \"x\"",
        ),
        (
            "backends.Direct.host",
            "a\0b",
            "backends.Direct.host: expected text without NUL bytes, found \"a\\0b\"",
        ),
    ] {
        assert_eq!(config.set(key, value).unwrap_err().message(), format!("fmi_config_set: {message}"));
    }
    for key in ["", "backends", "model", "backends.Direct", "model.", "backends..x", "backends.Direct.", "."]
    {
        let error = config.set(key, "true").unwrap_err();
        assert!(
            error.message().starts_with(&format!("fmi_config_set: {key}: expected the full name")),
            "{error}"
        );
    }
    assert_eq!(config.set_faas_memory_mib(0).unwrap_err().kind(), ErrorKind::Config);
    config.set_faas_memory_mib(512).unwrap();
    assert_eq!(settings(&config, &[("FMI_FAAS_MEMORY_MIB", "1")]).faas_memory_mib, 512);
}

#[test]
fn a_channel_is_enabled_by_true_alone_and_what_is_neither_true_nor_false_is_warned_of() {
    for (word, is_enabled) in [
        ("true", true),
        (r#""true""#, true),
        ("false", false),
        (r#""yes""#, false),
        (r#""True""#, false),
        ("1", false),
    ] {
        let mut config = Config::new();
        config.parse(&format!(r#"{{"backends": {{"Memory": {{"enabled": {word}}}}}}}"#)).unwrap();
        assert_eq!(settings(&config, &[]).memory.is_some(), is_enabled, "{word}");
        let expected = match word.trim_matches('"') {
            "true" | "false" => vec![],
            _ => vec![format!(
                "the JSON text: backends.Memory.enabled: neither true nor false, but {word}: taken for false"
            )],
        };
        assert_eq!(warnings(&config), expected);
    }
}

#[test]
fn what_is_spelt_out_is_shown_as_it_stands() {
    let mut config = Config::new();
    config
        .parse(
            r#"{"backends": {"Direct": {"port": "10000", "host": "a"}, "mine": {"depth": 3.0, "on": true}}}"#,
        )
        .unwrap();
    config.set("backends.Direct.host", "b").unwrap();
    let mut given = Vec::new();
    config
        .each_given(|key, value| {
            given.push(format!("{key} {value}"));
            Ok(())
        })
        .unwrap();
    assert_eq!(
        given,
        [
            "backends.Direct.host b",
            "backends.Direct.port 10000",
            "backends.mine.depth 3.0",
            "backends.mine.on true"
        ]
    );
    let enough = config.each_given(|_, _| Err(Error::new(ErrorKind::Callback, "enough")));
    assert_eq!(enough.unwrap_err().kind(), ErrorKind::Callback);
}

#[test]
fn unknown_keys_of_known_sections_are_warned_of() {
    let mut config = parsed(
        r#"{"wiat": "spin", "backends": {"Direct": {"hots": "x"}, "mine": {"any": [1]}, "redis": {}},
            "model": {"FaaS": {"price": 1}, "mine": {"any": 2}}}"#,
    );
    config.set("backends.S3.bucket", "b").unwrap();
    assert_eq!(
        warnings(&config),
        [
            "the JSON text: backends.Direct.hots: unknown key, ignored",
            "fmi_config_set: backends.S3.bucket: unknown key, ignored",
            "the JSON text: model.FaaS.price: unknown key, ignored",
            "the JSON text: wiat: unknown key, ignored",
            "backends.redis: taken for a custom channel, not for Redis",
        ]
    );
}

#[test]
fn secrets_stand_in_the_environment_only() {
    for json in [r#"{"secret": "hunter2"}"#, r#"{"backends": {"Direct": {"secret": "hunter2"}}}"#] {
        let error = parse_error(json);
        assert!(error.message().contains("secret_env") && !error.message().contains("hunter2"), "{error}");
    }
    assert!(Config::new().set("secret", "hunter2").is_err());

    let secret = "0123456789abcdef";
    let config = parsed(r#"{"secret_env": "MINE"}"#);
    let found = direct(&config, &[("MINE", secret), ("FMI_SECRET", "other")]);
    assert_eq!(found.secret.as_deref(), Some(secret.as_bytes()));
    assert!(!format!("{found:?}").contains("48, 49"), "{found:?}");
    assert_eq!(
        try_settings(&config, &[("FMI_SECRET", secret)]).err().unwrap().message(),
        "environment variable MINE: not set, but secret_env says that it holds the job secret"
    );
    for (config, variables) in [(config, [("MINE", "short")]), (Config::new(), [("FMI_SECRET", "short")])] {
        let error = try_settings(&config, &variables).err().unwrap();
        assert!(
            error.message().ends_with("expected a secret of at least 16 bytes, found one of 5"),
            "{error}"
        );
    }
    for (_, value) in visited(&Config::new(), &[("FMI_SECRET", secret)]) {
        assert_ne!(value, secret);
    }
}

#[test]
fn small_functions_keep_fewer_unexpected_messages() {
    let limit = |mib| settings(&Config::new(), &[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", mib)]).unexpected_limit;
    assert_eq!(limit("128"), 32 << 20);
    assert_eq!(limit("1023"), (1023 << 20) / 4);
    assert_eq!(limit("1024"), 256 << 20);
    assert_eq!(limit("10240"), 256 << 20);
    let config = parsed(r#"{"unexpected_limit": 7}"#);
    assert_eq!(settings(&config, &[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")]).unexpected_limit, 7);
}

#[test]
fn never_is_a_timeout_that_must_be_asked_for() {
    assert_eq!(settings(&parsed(r#"{"timeout_ms": "never"}"#), &[]).timeout, Some(Duration::MAX));
    let largest = parsed(r#"{"timeout_ms": 4294967294}"#);
    assert_eq!(settings(&largest, &[]).timeout, Some(Duration::from_millis(4294967294)));
}

#[test]
fn each_visits_in_the_schemas_order_and_others_after() {
    let config = parsed(
        r#"{"z": {"a": [1, 2]}, "job_id": "j", "backends": {"mine": {"speed": 1.50, "name": "x", "on": true}}}"#,
    );
    let pairs = visited(&config, &[]);
    let keys: Vec<_> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys[..11],
        [
            "wait",
            "unexpected_limit",
            "job_id",
            "log",
            "faas_memory_mib",
            "secret_env",
            "backends.Direct.enabled",
            "backends.Memory.enabled",
            "backends.Redis.enabled",
            "backends.S3.enabled",
            "backends.mine.enabled"
        ]
    );
    let others: Vec<_> = pairs[pairs.len() - 4..].iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        others,
        [
            ("backends.mine.name", "x"),
            ("backends.mine.on", "true"),
            ("backends.mine.speed", "1.50"),
            ("z", r#"{"a": [1, 2]}"#),
        ]
    );
    assert_eq!(visited_value(&config, &[], "backends.mine.enabled").as_deref(), Some("true"));
    assert_eq!(visited_value(&config, &[], "model.S3.download_price").as_deref(), Some("0.00000043"));
    let unique: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(unique.len(), keys.len());
}

#[test]
fn each_stops_at_the_visitors_error() {
    let mut count = 0;
    let error = Config::new()
        .each(|_, _| {
            count += 1;
            Err(Error::new(ErrorKind::Callback, "enough"))
        })
        .unwrap_err();
    assert_eq!((count, error.kind()), (1, ErrorKind::Callback));
}

#[test]
fn functions_are_kept() {
    let mut config = Config::new();
    config.set_interrupt(|| true);
    config.set_log(LogLevel::Debug, |_, _| {});
    let clone = config.clone();
    assert!(settings(&clone, &[]).interrupt.is_some_and(|check| check()));
}

#[test]
fn the_fingerprint_tells_what_ranks_must_agree_on() {
    let of = |json: &str, variables: Variables<'_>| settings(&parsed(json), variables).fingerprint;
    let default = of("{}", &[]);
    // Fixed for ever: ranks may run on other machines, from other builds.
    assert_eq!(default, FINGERPRINT_OF_DEFAULTS, "{default:#018x}");

    for same in [
        r#"{"backends": {"Direct": {"host": "x", "port": 1, "max_timeout": 1}}}"#,
        r#"{"backends": {"Direct": {}, "Redis": {"enabled": false}}}"#,
        r#"{"model": {"Direct": {"bandwidth": "4.0e2", "transfer_price": -0.0}}}"#,
        r#"{"model": {"Direct": {"unknown": 1}}, "job_id": "x", "wait": "park", "log": "error", "timeout_ms": 1}"#,
        r#"{"faas_memory_mib": "128"}"#,
    ] {
        assert_eq!(of(same, &[]), default, "{same}");
    }
    assert_eq!(of("{}", &[("FMI_SECRET", "0123456789abcdef"), ("FMI_RENDEZVOUS", "h:1")]), default);

    let mut seen = vec![default];
    for other in [
        r#"{"backends": {}}"#,
        r#"{"backends": {"Direct": {}, "Redis": {}}}"#,
        r#"{"backends": {"Direct": {}, "mine": {}}}"#,
        r#"{"model": {"Direct": {"bandwidth": 401}}}"#,
        r#"{"model": {"Direct": {"overhead": 0.35}}}"#,
        r#"{"model": {"Direct": {"include_infrastructure_costs": false}}}"#,
        r#"{"model": {"mine": {"x": 1}}}"#,
        r#"{"model": {"mine": {"x": 2}}}"#,
        r#"{"faas_memory_mib": 256}"#,
    ] {
        let fingerprint = of(other, &[]);
        assert!(!seen.contains(&fingerprint), "{other}");
        seen.push(fingerprint);
    }
}

/// Reckoned apart from this code, by a few lines of Python over the documented parts.
const FINGERPRINT_OF_DEFAULTS: u64 = 0xfe16_d5c4_7791_6780;

#[test]
fn the_configuration_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let marker_start = page.find("<!-- From here on").expect("the marker");
    let marker_end = marker_start + page[marker_start..].find('\n').expect("a line end") + 1;
    let mut fresh = page[..marker_end].to_owned();
    fresh.push_str("\n| key | type | default | variable | meaning |\n|---|---|---|---|---|\n");
    for row in ROWS {
        let default = match row.default {
            DefaultValue::Value(text) => format!("`{text}`"),
            DefaultValue::Described(text) => text.to_owned(),
        };
        let variable = row.variable(&row.key("<CHANNEL>")).replace("__CHANNEL__", "_<CHANNEL>_");
        fresh.push_str(&format!(
            "| `{}` | {} | {default} | `{variable}` | {} |\n",
            row.pattern,
            described_type(row),
            row.doc
        ));
    }
    if page == fresh {
        return;
    }
    assert!(
        std::env::var_os("FMI_BLESS").is_some(),
        "docs/configuration.md is stale: run FMI_BLESS=1 cargo test --lib configuration_page"
    );
    std::fs::write(path, fresh).unwrap();
}

fn described_type(row: &Row) -> String {
    match &row.kind {
        Kind::Bool | Kind::Switch => "`true` or `false`".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Kind::Integer { .. } | Kind::Number { .. } => row.kind.expected(),
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let known = prop::sample::select(vec![
        "backends",
        "model",
        "Direct",
        "FaaS",
        "host",
        "port",
        "enabled",
        "max_timeout",
        "wait",
        "secret",
        "timeout_ms",
    ]);
    let name = prop_oneof![3 => known.prop_map(str::to_owned), 1 => any::<String>()];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[0-9]{1,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            4 => prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Whatever was accepted also yields settings, or a configuration error.
fn use_everywhere(config: &Config) {
    if let Err(error) = try_settings(config, &[]) {
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    visited(config, &[]);
}

proptest! {
    #[test]
    fn random_json_never_panics(value in any_json()) {
        let mut config = Config::new();
        match config.parse(&value.to_string()) {
            Ok(()) => use_everywhere(&config),
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Config),
        }
    }

    #[test]
    fn random_text_never_panics(text in "\\PC*|[{}\\[\\]\",:a-z0-9 \\\\]*") {
        let mut config = Config::new();
        if config.parse(&text).is_ok() {
            use_everywhere(&config);
        }
    }

    #[test]
    fn random_keys_and_values_never_panic(
        key in "(backends\\.|model\\.)?(Direct\\.|S3\\.|\\PC*\\.)?(host|port|\\PC*)",
        value in any::<String>(),
    ) {
        let mut config = Config::new();
        if config.set(&key, &value).is_ok() {
            use_everywhere(&config);
        }
    }

    #[test]
    fn random_variables_never_panic(value in any::<String>().prop_filter("no NUL", |text| !text.contains('\0'))) {
        let environment = Environment {
            variable: &|_| Some(OsString::from(&value)),
            cgroup_memory: &|| Some(0),
        };
        if let Err(error) = Settings::new(&Config::new(), environment) {
            prop_assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}
