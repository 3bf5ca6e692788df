//! A NAS made of our own codec, for what no foreign client can be made to do: the same octets again,
//! another source address, a packet that is just so.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use watchword::radius::attribute::AttributeType;
use watchword::radius::packet::Code;
use watchword::radius::request::{MessageAuthenticatorRule, Request, SentRequest};
use watchword::radius::secret::Secret;
use watchword::random;

use super::{DEADLINE, Node, SECRET};

/// After how long without a datagram a NAS sends its request again.
const RETRANSMISSION: Duration = Duration::from_millis(50);

/// One NAS: a socket and a shared secret.
pub(crate) struct Nas {
    socket: UdpSocket,
    server: SocketAddr,
    secret: Secret,
    next_identifier: u8,
}

/// What a request says.
#[derive(Clone, Default)]
pub(crate) struct Question {
    user: Option<String>,
    password: Option<Vec<u8>>,
    attributes: Vec<(AttributeType, Vec<u8>)>,
    is_unsigned: bool,
    is_status: bool,
}

/// A request in octets, and what its reply must answer.
pub(crate) struct Sent {
    pub(crate) bytes: Vec<u8>,
    expected: SentRequest,
}

/// A reply that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: Code,
    pub(crate) bytes: Vec<u8>,
    pub(crate) attributes: Vec<(AttributeType, Vec<u8>)>,
}

impl Question {
    /// A login.
    pub(crate) fn login(user: &str, password: &str) -> Self {
        Self {
            user: Some(user.to_owned()),
            password: Some(password.as_bytes().to_vec()),
            ..Self::default()
        }
    }

    /// A Status-Server.
    pub(crate) fn status() -> Self {
        Self { is_status: true, ..Self::default() }
    }

    /// Without Message-Authenticator, as clients from before CVE-2024-3596 ask.
    pub(crate) fn unsigned(mut self) -> Self {
        self.is_unsigned = true;
        self
    }

    /// With one more attribute.
    pub(crate) fn with(mut self, kind: AttributeType, value: &[u8]) -> Self {
        self.attributes.push((kind, value.to_vec()));
        self
    }

    /// As the answer to a challenge.
    pub(crate) fn answering(self, challenge: &Answer) -> Self {
        let state = challenge.first(AttributeType::STATE).expect("a challenge has a State");
        self.with(AttributeType::STATE, state)
    }
}

impl Answer {
    /// The first value of `kind`.
    pub(crate) fn first(&self, kind: AttributeType) -> Option<&[u8]> {
        self.all(kind).next()
    }

    /// All values of `kind`, in order.
    pub(crate) fn all(&self, kind: AttributeType) -> impl Iterator<Item = &[u8]> {
        self.attributes.iter().filter(move |(one, _)| *one == kind).map(|(_, value)| &value[..])
    }
}

/// The code of a question's answer, in short.
pub(crate) fn code_of(nas: &mut Nas, question: &Question) -> Code {
    nas.ask(question).code
}

impl Nas {
    /// A NAS of `node` at 127.0.0.1 with [`SECRET`].
    pub(crate) fn new(node: &Node) -> Self {
        Self::at("127.0.0.1", node.radius, SECRET)
    }

    /// A NAS that sends from `address`.
    pub(crate) fn at(address: &str, server: SocketAddr, secret: &str) -> Self {
        let socket = UdpSocket::bind((address, 0)).expect("a port");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
        let secret = Secret::new(secret.as_bytes()).expect("a secret");
        Self { socket, server, secret, next_identifier: 0 }
    }

    /// Logs in with a signed request.
    pub(crate) fn login(&mut self, user: &str, password: &str) -> Code {
        self.ask(&Question::login(user, password)).code
    }

    /// Puts a question into octets, with a new identifier and a new Request Authenticator.
    pub(crate) fn sealed(&mut self, question: &Question) -> Sent {
        let authenticator = random::bytes().expect("random octets");
        let (identifier, next) = (self.next_identifier, self.next_identifier.wrapping_add(1));
        self.next_identifier = next;
        let mut bytes = Vec::new();
        let mut request = if question.is_status {
            Request::status_server(&mut bytes, identifier, authenticator)
        } else {
            Request::access(&mut bytes, identifier, authenticator, !question.is_unsigned)
        };
        if let Some(user) = &question.user {
            request.attributes.push_text(AttributeType::USER_NAME, user).expect("fits");
        }
        if let Some(password) = &question.password {
            request.push_password(password, &self.secret).expect("fits");
        }
        for (kind, value) in &question.attributes {
            request.attributes.push(*kind, value).expect("fits");
        }
        let (_, expected) = request.sign(&self.secret);
        Sent { bytes, expected }
    }

    /// Sends octets, whatever they are.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.server).expect("the datagram is sent");
    }

    /// Sends octets to another node than this NAS's own.
    pub(crate) fn send_to(&self, bytes: &[u8], server: SocketAddr) {
        self.socket.send_to(bytes, server).expect("the datagram is sent");
    }

    /// The next datagram, whatever it answers, if one comes in time.
    pub(crate) fn receive_any(&self, patience: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(patience)).expect("a timeout is set");
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }

    /// Waits for the answer to `sent`.
    pub(crate) fn receive(&self, sent: &Sent) -> Answer {
        let mut answers = self.receive_all(std::slice::from_ref(sent));
        answers.pop().expect("there is an answer")
    }

    /// Asks one question.
    pub(crate) fn ask(&mut self, question: &Question) -> Answer {
        let sent = self.sealed(question);
        self.send(&sent.bytes);
        self.receive(&sent)
    }

    /// Waits until the node has taken in all that was sent to it so far by anybody: it answers a
    /// Status-Server in its turn.
    pub(crate) fn wait_for_turn(&mut self) {
        let status = self.sealed(&Question::status());
        let other = UdpSocket::bind((self.socket.local_addr().expect("bound").ip(), 0));
        let other = other.expect("a port");
        other.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
        other.send_to(&status.bytes, self.server).expect("the datagram is sent");
        other.recv(&mut [0; 4096]).expect("an answer comes");
    }

    /// Sends `sent` again and again, as a NAS does, until it is answered; whatever else was answered
    /// on the way is passed over.
    pub(crate) fn ask_again(&self, sent: &Sent) -> Answer {
        let begun = Instant::now();
        self.socket.set_read_timeout(Some(RETRANSMISSION)).expect("a timeout is set");
        let mut buffer = [0; 4096];
        let answer = loop {
            assert!(begun.elapsed() < DEADLINE, "no answer, however often it is asked for");
            // Nothing has come for a while: it is time to send it again.
            let Ok(length) = self.socket.recv(&mut buffer) else {
                self.send(&sent.bytes);
                continue;
            };
            if buffer[1] == sent.expected.identifier {
                break self.verified(sent, &buffer[..length]);
            }
        };
        self.socket.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
        answer
    }

    /// Asks all questions at once; the answers are in the order of the questions.
    pub(crate) fn ask_all(&mut self, questions: &[Question]) -> Vec<Answer> {
        assert!(questions.len() <= 256, "each needs an identifier");
        let sent: Vec<Sent> = questions.iter().map(|question| self.sealed(question)).collect();
        sent.iter().for_each(|sent| self.send(&sent.bytes));
        self.receive_all(&sent)
    }

    /// Waits for the answers to all of `sent`, in whatever order they come.
    pub(crate) fn receive_all(&self, sent: &[Sent]) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = vec![None; sent.len()];
        let mut buffer = [0; 4096];
        while answers.iter().any(Option::is_none) {
            let length = self.socket.recv(&mut buffer).expect("an answer comes");
            let bytes = &buffer[..length];
            let place = sent.iter().position(|sent| sent.expected.identifier == bytes[1]);
            let place = place.expect("the answer is to one of the questions");
            assert_eq!(answers[place], None, "each question is answered once");
            answers[place] = Some(self.verified(&sent[place], bytes));
        }
        answers.into_iter().flatten().collect()
    }

    /// Every reply, whatever it says and whatever it answers, must be authentic and have its
    /// Message-Authenticator in front.
    pub(crate) fn verified(&self, sent: &Sent, bytes: &[u8]) -> Answer {
        let rule = MessageAuthenticatorRule::Required;
        let packet = sent.expected.verify_reply(bytes, &self.secret, rule);
        let packet = packet.expect("the reply is authentic");
        let attributes: Vec<_> =
            packet.attributes().map(|found| (found.kind, found.value.to_vec())).collect();
        let first = attributes.first().map(|(kind, _)| *kind);
        assert_eq!(first, Some(AttributeType::MESSAGE_AUTHENTICATOR));
        Answer { code: packet.code, bytes: bytes.to_vec(), attributes }
    }

    /// Sends octets that must be dropped for `cause`, and makes sure that they are: they are
    /// counted, and nothing has come back when a later question is answered.
    #[track_caller]
    pub(crate) fn assert_dropped(&self, node: &Node, bytes: &[u8], cause: &str) {
        let before = node.dropped(cause);
        self.send(bytes);
        let name = format!("watchword_radius_dropped_total{{cause=\"{cause}\"}}");
        node.wait_for_sample(&name, before + 1);
        assert_eq!(node.dropped(cause), before + 1, "{cause}");
        self.assert_silence(cause);
    }

    /// Nothing has arrived.
    #[track_caller]
    pub(crate) fn assert_silence(&self, why: &str) {
        self.socket.set_nonblocking(true).expect("is set");
        let received = self.socket.recv(&mut [0; 4096]);
        self.socket.set_nonblocking(false).expect("is set");
        let kind = received.as_ref().err().map(std::io::Error::kind);
        assert_eq!(kind, Some(ErrorKind::WouldBlock), "an answer in spite of {why}");
    }
}
