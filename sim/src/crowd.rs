//! The clients: a crowd of small state machines, driven by the world's events. They ask nodes over links,
//! wait, give up, try again, and write down all that they see.

mod choose;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use stormkeep_core::{
    append::{AppendError, ReadError, Request, Response},
    shard::{self, Checkpoint, ShardId},
    stream::StreamName,
};

use crate::{
    fault::{Place, What},
    history::{Call, Exchange, Nanos},
    host::Inbound,
    plan::Plan,
    rng::Stream,
    world::{MS, World},
};

/// What a client is for.
#[derive(Debug, Clone)]
enum Role {
    /// Works on the shared streams.
    Steady,
    /// A new player: a stream of its own each time.
    Login,
    /// One of a crowd on so many streams.
    Flash(u32),
    /// Gives up soon, and tries again at once.
    Merciless,
    /// Reads a shard's log from its beginning.
    Follow(ShardId, Checkpoint),
    /// After the faults: appends to a stream of one shard through one node, until it is answered.
    Probe(StreamName, u32),
    /// After the faults: reads streams whole, the last of the list first.
    Inspect(Vec<StreamName>, u64),
}

struct Client {
    role: Role,
    stream: Stream,
    /// When it leaves; `None`: when all do.
    until: Option<Nanos>,
    /// How often the append under way was tried.
    tries: u32,
    /// How many streams of its own it has made.
    made: u64,
}

/// See the module's docs.
pub struct Crowd {
    seed: u64,
    clients: Vec<Client>,
    shared: Vec<StreamName>,
    /// The last revision of each shared stream that any client saw.
    seen: Vec<Option<u64>>,
    stopping: bool,
    /// Calls that wait for an answer, or for their next try.
    under_way: usize,
    /// Probes and inspections that are not done.
    pub unfinished: usize,
    /// How many clients of surges are there.
    surging: usize,
}

impl Crowd {
    /// The crowd of a plan; nobody works yet.
    pub fn new(plan: &Plan) -> Self {
        let shared: Vec<_> = (0..plan.workload.streams)
            .filter_map(|n| StreamName::new(format!("player-{n}")).ok())
            .collect();
        Crowd {
            seed: plan.seed,
            seen: vec![None; shared.len()],
            shared,
            clients: Vec::new(),
            stopping: false,
            under_way: 0,
            unfinished: 0,
            surging: 0,
        }
    }

    /// Whether any call waits for an answer.
    pub fn is_quiet(&self) -> bool {
        self.under_way == 0
    }

    fn join(&mut self, role: Role, until: Option<Nanos>) -> u32 {
        let number = self.clients.len() as u32;
        let stream = Stream::new(self.seed, "client", u64::from(number));
        self.clients.push(Client { role, stream, until, tries: 0, made: 0 });
        number
    }
}

/// Everybody begins to work.
pub fn start(world: &Arc<World>) {
    let workload = &world.plan.workload;
    for _ in 0..workload.clients {
        let client = world.crowd().join(Role::Steady, None);
        turn_after(world, client, workload.think_ms * MS);
    }
    follow_all(world);
}

/// One client begins to follow each shard that nobody follows yet.
pub fn follow_all(world: &Arc<World>) {
    if !world.plan.workload.follow {
        return;
    }
    for shard in world.log().all_shards() {
        let followed = |c: &Client| matches!(&c.role, Role::Follow(id, _) if *id == shard.id);
        if !world.crowd().clients.iter().any(followed) {
            let client = world.crowd().join(Role::Follow(shard.id, Checkpoint::default()), None);
            turn_after(world, client, 1000 * MS);
        }
    }
}

/// A surge: clients arrive during the first third of its time, and leave at its end.
pub fn surge(world: &Arc<World>, what: &What, lasts: Nanos) {
    let (role, times) = match *what {
        What::LoginStorm { times } => (Role::Login, times),
        What::FlashCrowd { times, streams } => (Role::Flash(streams.max(1)), times),
        What::RetryStorm { times } => (Role::Merciless, times),
        _ => return,
    };
    let until = world.kernel.now() + lasts;
    for _ in 0..world.plan.workload.clients * times {
        let (client, wait) = {
            let mut crowd = world.crowd();
            crowd.surging += 1;
            let client = crowd.join(role.clone(), Some(until));
            let wait = crowd.clients[client as usize].stream.below(lasts / 3);
            (client, wait)
        };
        let here = world.clone();
        world.kernel.after(wait, move || turn(&here, client));
        let here = world.clone();
        world.kernel.after(lasts, move || here.crowd().surging -= 1);
    }
}

/// Nobody begins anything new from now on.
pub fn stop(world: &Arc<World>) {
    world.crowd().stopping = true;
}

/// Asks each open shard to take an append, through each node: none may be deaf.
pub fn probe(world: &Arc<World>) {
    let shards = world.log().all_shards();
    for info in shards.iter().filter(|s| !s.closed) {
        let names = (0..).filter_map(|n| StreamName::new(format!("probe-{}-{n}", info.id)).ok());
        let name = names
            .into_iter()
            .find(|name| shard::holder(&shards, name.key()).is_some_and(|s| s.id == info.id));
        if let Some(name) = name {
            for node in 0..world.plan.nodes {
                last_call(world, Role::Probe(name.clone(), node));
            }
        }
    }
}

/// Reads up to so many of the streams that clients have appended to, whole.
pub fn inspect(world: &Arc<World>, count_max: usize) {
    let mut names = std::collections::BTreeSet::new();
    for call in &world.history().calls {
        if let Exchange::Append(append, _) = &call.what {
            names.insert(append.stream.clone());
        }
    }
    let step = names.len().div_ceil(count_max.max(1)).max(1);
    let names: Vec<_> = names.into_iter().step_by(step).collect();
    for part in names.chunks(names.len().div_ceil(8).max(1)) {
        last_call(world, Role::Inspect(part.to_vec(), 0));
    }
}

fn last_call(world: &Arc<World>, role: Role) {
    let client = {
        let mut crowd = world.crowd();
        crowd.unfinished += 1;
        crowd.join(role, None)
    };
    turn(world, client);
}

fn turn_after(world: &Arc<World>, client: u32, mean: Nanos) {
    let wait = world.crowd().clients[client as usize].stream.wait(mean);
    let here = world.clone();
    world.kernel.after(wait, move || turn(&here, client));
}

/// A client decides what to do next.
fn turn(world: &Arc<World>, number: u32) {
    let now = world.kernel.now();
    let question = {
        let mut crowd = world.crowd();
        let crowd = &mut *crowd;
        let client = &mut crowd.clients[number as usize];
        let last_call = matches!(client.role, Role::Probe(..) | Role::Inspect(..));
        if (crowd.stopping && !last_call) || client.until.is_some_and(|until| now >= until) {
            return;
        }
        client.tries = 0;
        choose::decide(&world.plan, client, number, &crowd.shared, &crowd.seen)
    };
    ask(world, number, question);
}

/// A client asks a node.
fn ask(world: &Arc<World>, number: u32, question: Exchange) {
    let now = world.kernel.now();
    let (node, timeout) = {
        let mut crowd = world.crowd();
        crowd.under_way += 1;
        let client = &mut crowd.clients[number as usize];
        let node = match client.role {
            Role::Probe(_, node) => node,
            _ => client.stream.below(u64::from(world.plan.nodes)) as u32,
        };
        let patience = match client.role {
            Role::Merciless => world.plan.workload.timeout_ms / 10,
            _ => world.plan.workload.timeout_ms,
        };
        (node, patience.max(20) * MS)
    };
    let request = match &question {
        Exchange::Append(append, _) => Request::Append(append.clone()),
        Exchange::Read(read, _) => Request::ReadStream(read.clone()),
        Exchange::Follow(read, _) => Request::ReadLog(read.clone()),
    };
    let content = digest(&question);
    let call = {
        let mut history = world.history();
        history.calls.push(Call {
            client: number,
            node,
            invoked: now,
            ended: None,
            what: question,
        });
        history.calls.len() - 1
    };
    world.note("asked", node, content);
    world.send(Place::Clients, Place::Node(node), move |world| {
        let back = world.clone();
        let reply = move |response: Response| {
            let response = std::sync::Mutex::new(Some(response));
            back.send(Place::Node(node), Place::Clients, move |world| {
                let response =
                    response.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                if let Some(response) = response {
                    hear(world, call, Some(response));
                }
            });
        };
        let door = world.hosts()[node as usize].inbox.clone();
        match door {
            Some(door) => {
                let inbound = Inbound {
                    request: request.clone(),
                    timeout: Duration::from_nanos(timeout),
                    from_peer: false,
                    reply: Box::new(reply),
                };
                let _ = door.unbounded_send(inbound);
            }
            // The machine refuses the connection: nothing has happened.
            None => reply(match &request {
                Request::Append(_) => Response::Append(Err(AppendError::Unavailable)),
                Request::ReadStream(_) => Response::ReadStream(Err(ReadError::Unavailable)),
                Request::ReadLog(_) => Response::ReadLog(Err(ReadError::Unavailable)),
            }),
        }
    });
    let here = world.clone();
    world.kernel.after(timeout, move || hear(&here, call, None));
}

/// An answer arrives, or patience ends (`None`). Only the first of these counts.
fn hear(world: &Arc<World>, call: usize, response: Option<Response>) {
    let (number, what) = {
        let mut history = world.history();
        let record = &mut history.calls[call];
        if record.ended.is_some() {
            return;
        }
        record.ended = Some(world.kernel.now());
        match (&mut record.what, response) {
            (Exchange::Append(_, seen), Some(Response::Append(answer))) => *seen = Some(answer),
            (Exchange::Read(_, seen), Some(Response::ReadStream(answer))) => *seen = Some(answer),
            (Exchange::Follow(_, seen), Some(Response::ReadLog(answer))) => *seen = Some(answer),
            _ => {}
        }
        (record.client, record.what.clone())
    };
    world.note("answered", number, digest(&what));
    let next = {
        let mut crowd = world.crowd();
        crowd.under_way -= 1;
        react(world, &mut crowd, number, what)
    };
    let here = world.clone();
    match next {
        Next::Turn(wait) => world.kernel.after(wait, move || turn(&here, number)),
        Next::Again(wait, question) => {
            world.crowd().under_way += 1;
            world.kernel.after(wait, move || {
                here.crowd().under_way -= 1;
                ask(&here, number, question);
            });
        }
        Next::Leave => {}
    }
}

/// What a client does after an answer.
#[allow(clippy::large_enum_variant)] // short-lived; one is on the stack at a time
enum Next {
    Turn(Nanos),
    Again(Nanos, Exchange),
    Leave,
}

fn react(world: &World, crowd: &mut Crowd, number: u32, what: Exchange) -> Next {
    let workload = &world.plan.workload;
    let surging = crowd.surging > 0;
    let client = &mut crowd.clients[number as usize];
    let think = client.stream.wait(workload.think_ms * MS);
    match what {
        Exchange::Append(append, answer) => {
            let settled = matches!(answer, Some(Ok(_)));
            if let Some(Ok(appended)) = &answer {
                if let Some(nth) = shared_number(&append.stream) {
                    let seen = crowd.seen.get_mut(nth);
                    seen.into_iter().for_each(|s| *s = (*s).max(Some(appended.last)));
                }
                if client.tries > 0 {
                    world.rare("clients' unknown appends settled by a retry");
                }
                if surging {
                    world.rare("appends acknowledged while the crowd was there");
                }
            }
            if let (Some(Err(AppendError::WrongExpectedRevision { actual, .. })), Some(nth)) =
                (&answer, shared_number(&append.stream))
                && let Some(seen) = crowd.seen.get_mut(nth)
            {
                *seen = (*seen).max(*actual);
            }
            if settled {
                return match client.role {
                    Role::Probe(..) => {
                        crowd.unfinished -= 1;
                        Next::Leave
                    }
                    _ => Next::Turn(think),
                };
            }
            client.tries += 1;
            let again = Exchange::Append(append, None);
            let unknown = matches!(answer, None | Some(Err(AppendError::Unknown)));
            match (&client.role, &answer) {
                (Role::Probe(..), _) => Next::Again(200 * MS, again),
                _ if crowd.stopping => Next::Leave,
                (
                    _,
                    Some(Err(AppendError::Invalid(_) | AppendError::WrongExpectedRevision { .. })),
                ) => {
                    client.tries = 0;
                    Next::Turn(think)
                }
                (Role::Merciless, _) if client.tries < 20 => Next::Again(5 * MS, again),
                (_, Some(Err(AppendError::Busy { retry_after }))) if client.tries < 10 => {
                    let wait = retry_after.as_nanos() as Nanos;
                    Next::Again(wait + client.stream.below(wait + 1), again)
                }
                _ if unknown
                    && client.tries < 10
                    && client.stream.chance(f64::from(workload.retry_per_mille) / 1000.0) =>
                {
                    Next::Again(50 * MS + client.stream.below(100 * MS), again)
                }
                _ => Next::Turn(think),
            }
        }
        Exchange::Read(asked, answer) => {
            let Role::Inspect(names, from) = &mut client.role else { return Next::Turn(think) };
            let Some(Ok(slice)) = answer else { return Next::Turn(200 * MS) };
            if slice.events.len() < asked.limit as usize {
                names.pop();
                *from = 0;
            } else {
                *from += slice.events.len() as u64;
            }
            if names.is_empty() {
                crowd.unfinished -= 1;
                return Next::Leave;
            }
            Next::Turn(0)
        }
        Exchange::Follow(_, answer) => {
            let Role::Follow(_, at) = &mut client.role else { return Next::Leave };
            match answer {
                Some(Ok(slice)) if slice.next.ended => return Next::Leave,
                Some(Ok(slice)) => *at = slice.next,
                // What it had not read is gone: it has to begin elsewhere, which is not modelled.
                Some(Err(ReadError::Trimmed)) => return Next::Leave,
                _ => {}
            }
            Next::Turn(1500 * MS + client.stream.below(1000 * MS))
        }
    }
}

fn shared_number(stream: &StreamName) -> Option<usize> {
    stream.as_str().strip_prefix("player-")?.parse().ok()
}

/// A number for the trace that tells questions and answers apart.
fn digest(what: &Exchange) -> u64 {
    let mut hasher = DefaultHasher::new();
    match what {
        Exchange::Append(append, answer) => {
            (append.id, answer.is_some()).hash(&mut hasher);
            match answer {
                Some(Ok(a)) => (a.first, a.last, a.time, a.epoch, a.repeated).hash(&mut hasher),
                Some(Err(error)) => (error.outcome() as u64).hash(&mut hasher),
                None => {}
            }
        }
        Exchange::Read(read, answer) => {
            (&read.stream, read.from, answer.is_some()).hash(&mut hasher);
            if let Some(Ok(slice)) = answer {
                slice.head.hash(&mut hasher);
                slice.events.iter().for_each(|e| (e.revision, e.append).hash(&mut hasher));
            }
        }
        Exchange::Follow(read, answer) => {
            (read.shard, answer.is_some()).hash(&mut hasher);
            if let Some(Ok(slice)) = answer {
                slice.next.position.hash(&mut hasher);
                slice.events.iter().for_each(|e| (e.revision, e.append).hash(&mut hasher));
            }
        }
    }
    hasher.finish()
}
