//! A RADIUS server of a few lines, to test the generator against and to find its ceiling.
//!
//! It knows the secret and no users. What it answers is decided by the test.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::radius::packet::{Code, PACKET_BYTES_MAX, Packet};
use crate::radius::reply::Reply;
use crate::radius::secret::Secret;

/// What the responder does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A correct reply.
    Reply(Code),
    /// Two correct replies.
    Twice(Code, Code),
    /// A reply whose last octet is wrong.
    Forged,
    /// None.
    Silence,
}

/// Answers on a loopback port until it is dropped.
pub(super) struct Responder {
    pub address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Answers each request, and whom it came from, as `decide` says.
    pub(super) fn start(
        secret: &[u8],
        mut decide: impl FnMut(&Packet<'_>, SocketAddr) -> Answer + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
        let address = socket.local_addr().expect("address");
        let secret = Secret::new(secret).expect("secret");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let work = move || {
            let mut buffer = [0; PACKET_BYTES_MAX];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let request = Packet::parse(&buffer[..length]).expect("well formed");
                answer(&socket, client, &request, &secret, decide(&request, client));
            }
        };
        Self { address, is_over, thread: Some(std::thread::spawn(work)) }
    }
}

fn answer(
    socket: &UdpSocket,
    client: SocketAddr,
    request: &Packet<'_>,
    secret: &Secret,
    answer: Answer,
) {
    let mut buffer = Vec::new();
    let mut send = |code, is_forged: bool| {
        let mut octets =
            Reply::start(&mut buffer, code, request).sign(secret).expect("fits").to_vec();
        if let Some(last) = octets.last_mut() {
            *last ^= u8::from(is_forged);
        }
        // The client may be gone.
        let _ = socket.send_to(&octets, client);
    };
    match answer {
        Answer::Reply(code) => send(code, false),
        Answer::Twice(one, two) => {
            send(one, false);
            send(two, false);
        }
        Answer::Forged => send(Code::AccessAccept, true),
        Answer::Silence => {}
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A failed expectation in there has been printed already; a second panic would hide it.
            let _ = thread.join();
        }
    }
}
