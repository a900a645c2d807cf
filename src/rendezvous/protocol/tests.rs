//! Every message survives the wire; nothing else is taken for one.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::proof::{client_mac, client_mac_is_right, server_mac, server_mac_is_right};
use super::*;
use crate::error::ALL_KINDS;

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,64}"
}

prop_compose! {
    fn join()(
        job in any::<Hash>(), job_id in option::of(any::<Hash>()), rank: u32, size: u32, host_id: u64,
        fingerprint: u64, private in vec(address(), 0..=MAX_PRIVATE),
    ) -> Join {
        Join { job, job_id, rank, size, host_id, fingerprint, private }
    }
}

prop_compose! {
    fn membership()(epoch: Epoch, token: Token) -> Membership {
        Membership { epoch, token }
    }
}

prop_compose! {
    fn joined()(
        rank: u32, public in address(), membership in membership(), ranks_on_host: u32,
    ) -> Joined {
        Joined { rank, public, membership, ranks_on_host }
    }
}

prop_compose! {
    fn notice()(
        context: u64, cause in select(&ALL_KINDS[..]), cause_rank: u32, about in option::of(any::<u32>()),
        code: i32, operation: u8,
    ) -> AbortNotice {
        AbortNotice { context, cause, cause_rank, about, code, operation }
    }
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    use ClientMessage::*;
    prop_oneof![
        any::<Nonce>().prop_map(|nonce| Hello { nonce }),
        (join(), option::of(any::<Hash>())).prop_map(|(join, mac)| Join { join, mac }),
        (join(), membership(), option::of(any::<Hash>())).prop_map(|(join, membership, mac)| Rejoin {
            join,
            membership,
            mac
        }),
        any::<u32>().prop_map(|rank| Connect { rank }),
        any::<u32>().prop_map(|rank| Ready { rank }),
        (any::<u32>(), any::<bool>()).prop_map(|(rank, alive)| Link { rank, alive }),
        Just(Leave),
        notice().prop_map(|notice| Abort { notice }),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    use ServerMessage::*;
    prop_oneof![
        (any::<Nonce>(), any::<bool>(), any::<bool>(), text()).prop_map(
            |(nonce, secret_known, secret_required, version)| Challenge {
                nonce,
                secret_known,
                secret_required,
                version
            }
        ),
        (joined(), option::of(any::<Hash>())).prop_map(|(joined, mac)| Joined { joined, mac }),
        (any::<u8>(), text()).prop_map(|(code, text)| Refused { refusal: Refusal::from_code(code), text }),
        any::<u32>().prop_map(|rank| Offer { rank }),
        (any::<u32>(), any::<u32>(), vec(address(), 0..=MAX_CANDIDATES))
            .prop_map(|(rank, ranks_on_host, candidates)| Go { rank, ranks_on_host, candidates }),
        (any::<u32>(), select(&[Reason::Left, Reason::Lost, Reason::Ended][..]))
            .prop_map(|(rank, reason)| Unreachable { rank, reason }),
        (any::<u32>(), any::<bool>()).prop_map(|(rank, joined)| NotYet {
            rank,
            missing: if joined { Missing::NotReady } else { Missing::NotJoined }
        }),
        any::<u32>().prop_map(|rank| Suspect { rank }),
        any::<Epoch>().prop_map(|epoch| Moved { epoch }),
        (any::<u32>(), notice()).prop_map(|(rank, notice)| Aborted { rank, notice }),
    ]
}

/// Everything in `bytes`, pushed in pieces of `piece` bytes.
fn decode_all<T>(
    bytes: &[u8],
    piece: usize,
    decode: impl Fn(&Frame<'_>) -> Result<Option<T>>,
) -> Result<Vec<T>> {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        while let Some(frame) = decoder.next_frame()? {
            messages.extend(decode(&frame)?);
        }
        assert!(decoder.held() < MAX_FRAME);
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn client_messages_survive_the_wire(sent in vec(client_message(), 0..8), piece in 1usize..600) {
        let mut bytes = Vec::new();
        put_preamble(&mut bytes, &[2; 16]);
        sent.iter().for_each(|message| message.encode(&mut bytes));
        prop_assert_eq!(decode_all(&bytes, piece, ClientMessage::decode), Ok(sent));
    }

    #[test]
    fn server_messages_survive_the_wire(sent in vec(server_message(), 0..8), piece in 1usize..600) {
        let mut bytes = Vec::new();
        put_preamble(&mut bytes, &[2; 16]);
        sent.iter().for_each(|message| message.encode(&mut bytes));
        prop_assert_eq!(decode_all(&bytes, piece, ServerMessage::decode), Ok(sent));
    }

    #[test]
    fn every_message_fits_the_early_bound(client in client_message(), server in server_message()) {
        let mut bytes = Vec::new();
        client.encode(&mut bytes);
        prop_assert!(bytes.len() <= MAX_FRAME_EARLY);
        bytes.clear();
        server.encode(&mut bytes);
        prop_assert!(bytes.len() <= MAX_FRAME_EARLY);
    }

    #[test]
    fn garbage_is_an_error_or_nothing(garbage in vec(any::<u8>(), 0..2000), greet: bool) {
        let mut bytes = Vec::new();
        if greet {
            put_preamble(&mut bytes, &[2; 16]);
        }
        bytes.extend_from_slice(&garbage);
        for result in [
            decode_all(&bytes, 97, ClientMessage::decode).map(drop),
            decode_all(&bytes, 97, ServerMessage::decode).map(drop),
        ] {
            if let Err(error) = result {
                prop_assert_eq!(error.kind(), ErrorKind::Protocol);
            }
        }
    }

    #[test]
    fn a_body_cut_short_or_prolonged_is_an_error(message in client_message(), cut in 1usize..4) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let (kind, body) = (bytes[2], &bytes[3..]);
        if !body.is_empty() {
            let short = &body[..body.len().saturating_sub(cut)];
            let result = ClientMessage::decode(&Frame { kind, body: short });
            prop_assert!(result.is_err());
        }
        let long = [body, &[0]].concat();
        let result = ClientMessage::decode(&Frame { kind, body: &long });
        prop_assert!(result.is_err());
    }

    #[test]
    fn one_changed_bit_spoils_the_proofs(join in join(), joined in joined(), bit in 0usize..256) {
        let (secret, client, server) = (b"0123456789abcdef", [1; 16], [2; 16]);
        let mut mac = client_mac(secret, &client, &server, &join, None);
        prop_assert!(client_mac_is_right(secret, &client, &server, &join, None, &mac));
        prop_assert!(!client_mac_is_right(b"0123456789abcdeF", &client, &server, &join, None, &mac));
        prop_assert!(!client_mac_is_right(secret, &server, &client, &join, None, &mac));
        let membership = Membership { epoch: [0; 16], token: [0; 16] };
        prop_assert!(!client_mac_is_right(secret, &client, &server, &join, Some(&membership), &mac));
        let answer = server_mac(secret, &client, &server, &mac, &joined);
        prop_assert!(server_mac_is_right(secret, &client, &server, &mac, &joined, &answer));
        mac[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!client_mac_is_right(secret, &client, &server, &join, None, &mac));
        prop_assert!(!server_mac_is_right(secret, &client, &server, &mac, &joined, &answer));
    }
}

#[test]
fn a_frame_of_an_unknown_kind_is_skipped_by_its_length() {
    let mut bytes = Vec::new();
    put_preamble(&mut bytes, &[2; 16]);
    bytes.extend_from_slice(&[4, 0, 0x7f, 1, 2, 3]);
    ClientMessage::Leave.encode(&mut bytes);
    assert_eq!(decode_all(&bytes, 1000, ClientMessage::decode), Ok(vec![ClientMessage::Leave]));
}

#[test]
fn long_frames_are_refused_until_they_are_allowed() {
    let mut frame = vec![0; 600];
    frame[..3].copy_from_slice(&[86, 2, 0x7f]);
    let mut decoder = Decoder::new();
    let mut bytes = Vec::new();
    put_preamble(&mut bytes, &[2; 16]);
    decoder.push(&[&bytes[..], &frame[..2]].concat());
    assert_eq!(decoder.next_frame().unwrap_err().kind(), ErrorKind::Protocol, "refused by its length alone");

    let mut decoder = Decoder::new();
    decoder.allow_long_frames();
    decoder.push(&[&bytes[..], &frame[..]].concat());
    assert_eq!(decoder.next_frame().unwrap().unwrap().body.len(), 597);

    decoder.push(&[0xff, 0xff]);
    assert!(decoder.next_frame().is_err());
}

#[test]
fn the_first_strange_byte_is_enough() {
    for strange in [&b"H"[..], b"\xf5FMX", &[10, 0, 0, 1, 0, 80, 0, 0]] {
        let mut decoder = Decoder::new();
        decoder.push(strange);
        let error = decoder.next_frame().unwrap_err();
        assert!(error.message().contains("does not speak version 2"), "{error}");
    }
    let mut decoder = Decoder::new();
    decoder.push(&[&MAGIC[..], &[3]].concat());
    let error = decoder.next_frame().unwrap_err();
    assert!(error.message().contains("speaks version 3"), "{error}");
}

#[test]
fn only_addresses_of_private_networks_are_private() {
    for text in [
        "10.1.2.3:1",
        "172.16.0.1:1",
        "192.168.1.1:1",
        "100.64.0.1:1",
        "100.127.255.1:1",
        "127.0.0.1:1",
        "[::1]:1",
        "[fd00::1]:1",
    ] {
        assert!(is_private(&text.parse().unwrap()), "{text}");
    }
    for text in [
        "8.8.8.8:1",
        "172.32.0.1:1",
        "100.128.0.1:1",
        "169.254.1.1:1",
        "[2001:db8::1]:1",
        "[fe80::1]:1",
        "10.1.2.3:0",
    ] {
        assert!(!is_private(&text.parse().unwrap()), "{text}");
    }
}
