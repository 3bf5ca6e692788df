//! Wire vectors: packets as other implementations make them, and what is to be seen in them.
//!
//! The files in `testdata` hold one statement per line. `secret` and `request` set the scene, every
//! other statement is checked against it. Tests only.

use super::attribute::AttributeType;
use super::authenticator::MessageAuthenticator;
use super::packet::Packet;
use super::password;
use super::request::{MessageAuthenticatorRule, SentRequest};
use super::secret::Secret;

#[test]
fn examples_of_the_rfcs() {
    assert_eq!(check(include_str!("testdata/rfc.txt")), 15);
}

#[test]
fn signatures_made_elsewhere() {
    assert_eq!(check(include_str!("testdata/signature.txt")), 40);
}

#[test]
fn malformed_packets() {
    assert_eq!(check(include_str!("testdata/malformed.txt")), 17);
}

/// The control: a statement that does not hold must fail.
#[test]
#[should_panic(expected = "line 3: message-authenticator valid")]
fn a_wrong_statement_is_noticed() {
    check(
        "secret x\nrequest 010000140000000000000000 0000000000000000\nmessage-authenticator valid",
    );
}

/// Checks every statement; yields how many there were.
fn check(statements: &str) -> usize {
    let mut secret = None;
    let mut request = Vec::new();
    let mut checked = 0;
    for (number, line) in statements.lines().enumerate() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" => {}
            "secret" => secret = Some(Secret::new(rest.as_bytes()).expect("not empty")),
            "request" => request = octets(rest),
            _ => {
                checked += 1;
                let holds = holds(word, rest, secret.as_ref(), &request);
                assert!(holds, "line {}: {word} {rest}", number + 1);
            }
        }
    }
    checked
}

fn holds(word: &str, rest: &str, secret: Option<&Secret>, request: &[u8]) -> bool {
    if word == "malformed" {
        let (name, datagram) = rest.split_once(' ').unwrap_or((rest, ""));
        return Packet::parse(&octets(datagram)).err().map(|error| error.name()) == Some(name);
    }
    let secret = secret.expect("a secret comes first");
    let packet = Packet::parse(request).expect("a well-formed request comes first");
    match word {
        "attributes" => {
            let names: Vec<_> = packet.attributes().map(|found| found.kind.to_string()).collect();
            names.join(" ") == rest
        }
        "text" => {
            let (name, text) = rest.split_once(' ').expect("name and text");
            let kind = (0..=255).map(AttributeType).find(|kind| kind.name() == Some(name));
            packet.first_text(kind.expect("a known name")) == Some(text)
        }
        "password" => {
            let hidden = packet.first(AttributeType::USER_PASSWORD).expect("a password");
            let clear = password::reveal(hidden, secret, &packet.authenticator);
            clear.expect("whole blocks").as_bytes() == rest.as_bytes()
        }
        "message-authenticator" => {
            packet.message_authenticator(secret)
                == match rest {
                    "absent" => MessageAuthenticator::Absent,
                    "valid" => MessageAuthenticator::Valid,
                    "invalid" => MessageAuthenticator::Invalid,
                    other => panic!("unknown outcome {other}"),
                }
        }
        "accounting" => packet.request_authenticator_is_valid(secret) == (rest == "valid"),
        "reply" => reply_is(rest, secret, &packet),
        other => panic!("unknown statement {other}"),
    }
}

fn reply_is(rest: &str, secret: &Secret, request: &Packet<'_>) -> bool {
    let words: Vec<_> = rest.split(' ').collect();
    let [rule, expected, reply] = words[..] else { panic!("rule, outcome and octets: {rest}") };
    let rule = match rule {
        "required" => MessageAuthenticatorRule::Required,
        "optional" => MessageAuthenticatorRule::Optional,
        other => panic!("unknown rule {other}"),
    };
    let Packet { code, identifier, authenticator, .. } = *request;
    let sent = SentRequest { code, identifier, authenticator };
    let reply = octets(reply);
    let outcome = sent.verify_reply(&reply, secret, rule);
    outcome.map_or_else(|error| error.name(), |_| "valid") == expected
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}
