//! The clients: a crowd of small state machines, driven by the world's events. They ask nodes over links,
//! wait, give up, try again, and write down all that they see.

mod choose;
mod consume;
mod digest;
mod last_calls;
mod react;

use std::{sync::Arc, time::Duration};

use stormkeep_core::{
    append::{AppendError, ReadError, Request, Response},
    consume::{ConsumeError, ManageError},
    event::RecordedEvent,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::GlobalPosition,
};

use crate::{
    fault::{Place, What},
    history::{Call, Exchange, Nanos},
    host::Inbound,
    plan::Plan,
    rng::Stream,
    world::{MS, World},
};
use digest::digest;
use react::{Next, react};

use consume::Part;
pub use consume::{handled, settings};
pub use last_calls::{inspect, last_words, overlook, probe};

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
    /// Has to do with the group of this number.
    Group(u32, Part),
    /// Reads a shard's log from its beginning.
    Follow(ShardId, Checkpoint),
    /// Reads all shards in their one order, from the beginning.
    FollowAll(GlobalPosition),
    /// After the faults: appends to a stream of one shard through one node, until it is answered.
    Probe(StreamName, u32),
    /// After the faults: reads streams whole, the last of the list first.
    Inspect(Vec<StreamName>, u64),
    /// After the faults: reads all shards from a position on, through one node after the other, until each has shown
    /// what goes beyond a goal.
    Overlook { node: u32, begin: GlobalPosition, at: GlobalPosition, goal: GlobalPosition },
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
    /// The node that it asks next, if it is of matter.
    pinned: Option<u32>,
    /// What a consumer has fetched: places and events.
    holds: Vec<(u64, RecordedEvent)>,
}

impl Role {
    /// Whether its calls must end before the world is at rest: those of consumers never do.
    fn counts(&self) -> bool {
        !matches!(self, Role::Group(..))
    }
}

/// See the module's docs.
pub struct Crowd {
    seed: u64,
    clients: Vec<Client>,
    shared: Vec<StreamName>,
    /// The last revision of each shared stream that any client saw.
    seen: Vec<Option<u64>>,
    /// The highest watermark that any client saw.
    watermark: GlobalPosition,
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
            watermark: GlobalPosition::START,
            clients: Vec::new(),
            stopping: false,
            under_way: 0,
            unfinished: 0,
            surging: 0,
        }
    }

    /// Whether the faults are over, and everybody does as he should.
    pub fn is_calm(&self) -> bool {
        self.stopping
    }

    /// Whether any call waits for an answer.
    pub fn is_quiet(&self) -> bool {
        self.under_way == 0
    }

    fn join(&mut self, role: Role, until: Option<Nanos>) -> u32 {
        let number = self.clients.len() as u32;
        let stream = Stream::new(self.seed, "client", u64::from(number));
        self.clients.push(Client {
            role,
            stream,
            until,
            tries: 0,
            made: 0,
            pinned: None,
            holds: Vec::new(),
        });
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
    for _ in 0..workload.all_followers {
        let client = world.crowd().join(Role::FollowAll(GlobalPosition::START), None);
        turn_after(world, client, 1000 * MS);
    }
    follow_shards(world);
    consume::start(world);
}

/// One client begins to follow each shard that nobody follows yet.
pub fn follow_shards(world: &Arc<World>) {
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
        let last_call =
            matches!(client.role, Role::Probe(..) | Role::Inspect(..) | Role::Overlook { .. });
        let consumer = matches!(client.role, Role::Group(_, Part::Consumer(_)));
        if (crowd.stopping && !last_call && !consumer)
            || client.until.is_some_and(|until| now >= until)
        {
            return;
        }
        client.tries = 0;
        let known = choose::Known {
            plan: &world.plan,
            shared: &crowd.shared,
            seen: &crowd.seen,
            watermark: crowd.watermark,
        };
        choose::decide(&known, client, number)
    };
    ask(world, number, question);
}

/// A client asks a node.
fn ask(world: &Arc<World>, number: u32, question: Exchange) {
    let now = world.kernel.now();
    let (node, timeout) = {
        let mut crowd = world.crowd();
        crowd.under_way += usize::from(crowd.clients[number as usize].role.counts());
        let client = &mut crowd.clients[number as usize];
        if let Exchange::Settle(settle, _) = &question
            && client.tries == 0
        {
            consume::before_settling(world, &client.holds, settle);
        }
        let node = match client.role {
            Role::Probe(_, node) | Role::Overlook { node, .. } => node,
            _ if client.pinned.is_some() => client.pinned.take().unwrap_or_default(),
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
        Exchange::All(read, _) => Request::ReadAll(*read),
        Exchange::Manage(manage, _) => Request::Manage(manage.clone()),
        Exchange::Fetch(fetch, _) => Request::Fetch(fetch.clone()),
        Exchange::Settle(settle, _) => Request::Settle(settle.clone()),
        Exchange::Leave(leave, _) => Request::Leave(leave.clone()),
    };
    let content = digest(&question);
    let call = {
        let mut history = world.history();
        history.calls.push(Call {
            client: number,
            node,
            invoked: now,
            timeout,
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
                Request::ReadAll(_) => Response::ReadAll(Err(ReadError::Unavailable)),
                Request::Fetch(_) => Response::Fetch(Err(ConsumeError::Unavailable)),
                Request::Settle(_) => Response::Settle(Err(ConsumeError::Unavailable)),
                Request::Leave(_) => Response::Leave(Err(ConsumeError::Unavailable)),
                Request::Manage(_) => Response::Manage(Err(ManageError::Unknown)),
                Request::Units(_) => Response::Units(Vec::new()),
            }),
        }
    });
    let here = world.clone();
    world.kernel.after(timeout, move || hear(&here, call, None));
}

/// An answer arrives, or patience ends (`None`). Only the first of these counts.
fn hear(world: &Arc<World>, call: usize, response: Option<Response>) {
    let (number, node, what) = {
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
            (Exchange::All(_, seen), Some(Response::ReadAll(answer))) => *seen = Some(answer),
            (Exchange::Manage(_, seen), Some(Response::Manage(answer))) => *seen = Some(answer),
            (Exchange::Fetch(_, seen), Some(Response::Fetch(answer))) => *seen = Some(answer),
            (Exchange::Settle(_, seen), Some(Response::Settle(answer))) => *seen = Some(answer),
            (Exchange::Leave(_, seen), Some(Response::Leave(answer))) => *seen = Some(answer),
            _ => {}
        }
        (record.client, record.node, record.what.clone())
    };
    world.note("answered", number, digest(&what));
    let next = {
        let mut crowd = world.crowd();
        crowd.under_way -= usize::from(crowd.clients[number as usize].role.counts());
        react(world, &mut crowd, number, node, what)
    };
    let here = world.clone();
    match next {
        Next::Turn(wait) => world.kernel.after(wait, move || turn(&here, number)),
        Next::Again(wait, question) => {
            let counts = {
                let mut crowd = world.crowd();
                let counts = usize::from(crowd.clients[number as usize].role.counts());
                crowd.under_way += counts;
                counts
            };
            world.kernel.after(wait, move || {
                here.crowd().under_way -= counts;
                ask(&here, number, question);
            });
        }
        Next::Leave => {}
    }
}
