//! What a RADIUS server says: what is taken for the client is well formed, and arrives as it was taken.

#![no_main]

use libfuzzer_sys::fuzz_target;
use watchword::radius::packet::{Code, Packet};
use watchword::radius::relay::{put_reply, take_reply, take_request};
use watchword::radius::reply::Reply;
use watchword::radius::request::Request;
use watchword::radius::secret::Secret;

fuzz_target!(|octets: &[u8]| {
    let Ok(packet) = Packet::parse(octets) else { return };
    let _ = take_request(&packet);
    let (far, near) = (secret(b"far"), secret(b"near"));
    let Ok(taken) = take_reply(&packet, &far, &[2; 16]) else { return };
    let mut buffer = Vec::new();
    let (request, _) = Request::access(&mut buffer, 1, [3; 16], true).sign(&near);
    let Ok(request) = Packet::parse(request) else { unreachable!("it was just built") };
    let mut buffer = Vec::new();
    let mut reply = Reply::start(&mut buffer, Code::AccessAccept, &request);
    if put_reply(&taken, &mut reply.attributes, &near, &[3; 16], [0; 2]).is_err() {
        // It may be longer than it was by the headers of attributes that were one.
        return;
    }
    let Ok(octets) = reply.sign(&near) else { return };
    let Ok(packet) = Packet::parse(octets) else { unreachable!("it was just built") };
    assert_eq!(take_reply(&packet, &near, &[3; 16]), Ok(taken));
});

fn secret(octets: &[u8]) -> Secret {
    Secret::new(octets).unwrap_or_else(|_| unreachable!("it is not empty"))
}
