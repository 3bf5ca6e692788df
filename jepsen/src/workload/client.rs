//! Clients as the history knows them: processes that have one operation open at a time.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Stage;
use crate::client::admin::{Admin, Answer};
use crate::client::radius::{Flight, Landing, Question, Radius, Reply};
use crate::history::{Event, Kind, Process, Recorder};
use crate::rng::Rng;
use crate::wait;

/// How long a cluster that is whole may leave a question without an answer.
const ANSWERING: Duration = Duration::from_secs(10);

/// Writes the operations of one client down.
pub(super) struct Client<'a> {
    recorder: &'a Recorder,
    process: Process,
}

impl<'a> Client<'a> {
    /// A new process.
    pub(super) fn new(recorder: &'a Recorder) -> Self {
        Self { recorder, process: recorder.new_process() }
    }

    /// An operation begins.
    fn begin(&self, f: &str, key: &str, value: Value, node: &str, via: &str) -> Event {
        self.recorder.record(Event {
            key: Some(key.to_owned()),
            value,
            node: Some(node.to_owned()),
            via: Some(via.to_owned()),
            ..Event::new(self.process, Kind::Invoke, f)
        })
    }

    /// It ends. Who does not know how goes on as a new process: the old one's operation may still be
    /// under way.
    fn end(&mut self, event: Event) {
        let is_unknown = event.kind == Kind::Info;
        self.recorder.record(event);
        if is_unknown {
            self.process = self.recorder.new_process();
        }
    }
}

/// A client that uses the command line of one node after another.
pub(super) struct Operator<'a> {
    stage: &'a Stage<'a>,
    client: Client<'a>,
}

impl<'a> Operator<'a> {
    /// A new one.
    pub(super) fn new(stage: &'a Stage<'a>) -> Self {
        Self { stage, client: Client::new(stage.recorder) }
    }

    /// Changes something by the command line of `host`; tells what is known of it.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub(super) fn change(
        &mut self,
        f: &str,
        key: &str,
        value: Value,
        host: usize,
        arguments: &[&str],
    ) -> Result<Kind> {
        let (begun, answer) = self.run(f, key, value, host, arguments)?;
        let kind = answer.change();
        self.client.end(Event { error: answer.error(), ..begun.completed(kind) });
        Ok(kind)
    }

    /// Reads something by the command line of `host`; `value` finds it in the answer.
    ///
    /// # Errors
    /// When the command cannot be started, or answers with something that is not understood.
    pub(super) fn read<T>(
        &mut self,
        f: &str,
        key: &str,
        host: usize,
        arguments: &[&str],
        value: impl FnOnce(&Value) -> Option<(Value, T)>,
    ) -> Result<Option<T>> {
        let arguments = [arguments, &["--format", "json"]].concat();
        let (begun, answer) = self.run(f, key, Value::Null, host, &arguments)?;
        if answer.read() != Kind::Ok {
            self.client.end(Event { error: answer.error(), ..begun.completed(Kind::Fail) });
            return Ok(None);
        }
        let found = value(&answer.json()?);
        let (value, found) = found.with_context(|| format!("{arguments:?}: {}", answer.stdout))?;
        self.client.end(Event { value, ..begun.completed(Kind::Ok) });
        Ok(Some(found))
    }

    /// Reads something of a cluster that is whole: there must be an answer.
    ///
    /// # Errors
    /// As [`read`](Self::read), and when there is no answer after some tries.
    pub(super) fn read_at_last(
        &mut self,
        f: &str,
        key: &str,
        host: usize,
        arguments: &[&str],
        value: impl Fn(&Value) -> Option<Value>,
    ) -> Result<()> {
        wait::until(ANSWERING, || {
            let found = self.read(f, key, host, arguments, |said| Some((value(said)?, ())))?;
            found.with_context(|| format!("{} does not answer", self.stage.db.name(host)))
        })
    }

    fn run(
        &mut self,
        f: &str,
        key: &str,
        value: Value,
        host: usize,
        arguments: &[&str],
    ) -> Result<(Event, Answer)> {
        let admin: Admin = self.stage.db.admin(host)?;
        let begun = self.client.begin(f, key, value, self.stage.db.name(host), "cli");
        Ok((begun, admin.run(arguments)?))
    }
}

/// One request among those that are sent at once, and how it is written down.
pub(super) struct Racer<'r> {
    /// What the operation is called.
    pub(super) f: &'r str,
    /// What it is on.
    pub(super) key: &'r str,
    /// Its value. The verdict is added to an object or nothing; a number stays as it is.
    pub(super) value: Value,
    /// The request, and the nodes that it is sent to in turn.
    pub(super) flight: Flight,
}

/// Clients that share a thread and a socket, so that they can all ask at the same moment.
pub(super) struct Party<'a> {
    stage: &'a Stage<'a>,
    radius: Radius,
    clients: Vec<Client<'a>>,
    /// For what is asked.
    pub(super) rng: Rng,
}

impl<'a> Party<'a> {
    /// The party of thread `number` of a workload.
    ///
    /// # Errors
    /// When there is no socket.
    pub(super) fn new(stage: &'a Stage<'a>, workload: &str, number: usize) -> Result<Self> {
        let rng = stage.rng_of(workload, number);
        Ok(Self { stage, radius: stage.radius(&rng)?, clients: Vec::new(), rng })
    }

    /// A new request, and the way that it takes.
    pub(super) fn flight(&mut self, question: &Question<'_>, route: Vec<usize>) -> Flight {
        Flight { request: self.radius.request(question), route }
    }

    /// A new request, which is sent to one node after the other until one answers.
    pub(super) fn flight_anywhere(&mut self, question: &Question<'_>) -> Flight {
        let route = self.route();
        self.flight(question, route)
    }

    /// All nodes in random order: the way of a request that is sent again and again.
    fn route(&mut self) -> Vec<usize> {
        let mut route: Vec<usize> = (0..self.stage.db.size()).collect();
        self.rng.shuffle(&mut route);
        route
    }

    /// Routes for requests that race: each begins at another node, as far as there are enough.
    pub(super) fn routes(&mut self, count: usize) -> Vec<Vec<usize>> {
        let route = self.route();
        let from = |start: usize| {
            let mut route = route.clone();
            route.rotate_left(start % self.stage.db.size().max(1));
            route
        };
        (0..count).map(from).collect()
    }

    /// Sends all requests at once, each as a client of its own, and writes down what becomes of them.
    ///
    /// # Errors
    /// When the socket fails.
    pub(super) fn race(&mut self, racers: Vec<Racer<'_>>) -> Result<Vec<Option<Reply>>> {
        while self.clients.len() < racers.len() {
            self.clients.push(Client::new(self.stage.recorder));
        }
        let begun: Vec<Event> = racers
            .iter()
            .zip(&self.clients)
            .map(|(racer, client)| {
                let first =
                    racer.flight.route.first().map_or("?", |&host| self.stage.db.name(host));
                client.begin(racer.f, racer.key, racer.value.clone(), first, "radius")
            })
            .collect();
        let flights: Vec<Flight> = racers.into_iter().map(|racer| racer.flight).collect();
        let mut replies = vec![None; flights.len()];
        let (db, clients) = (self.stage.db, &mut self.clients);
        self.radius.fly(&flights, |number, Landing { reply }| {
            let (Some(begun), Some(client)) = (begun.get(number), clients.get_mut(number)) else {
                return;
            };
            client.end(match &reply {
                Some((host, reply)) => Event {
                    value: with_verdict(&begun.value, reply),
                    node: Some(db.name(*host).to_owned()),
                    ..begun.completed(Kind::Ok)
                },
                None => {
                    Event { error: Some("no answer".to_owned()), ..begun.completed(Kind::Info) }
                }
            });
            if let Some(place) = replies.get_mut(number) {
                *place = reply.map(|(_, reply)| reply);
            }
        })?;
        Ok(replies)
    }
}

fn with_verdict(value: &Value, reply: &Reply) -> Value {
    let mut value = value.clone();
    match &mut value {
        Value::Null => json!({ "verdict": reply.verdict() }),
        Value::Object(fields) => {
            fields.insert("verdict".to_owned(), reply.verdict().into());
            value
        }
        _ => value,
    }
}
