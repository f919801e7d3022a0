//! Calls that arrive, come too late, or break.

use std::time::{Duration, Instant};

use futures::{FutureExt, future::BoxFuture};
use stormkeep::peers::{Address, Addresses, InMemory, Settings, announce};
use stormkeep_core::{
    append::{AppendError, ReadError, Request, Response},
    env::{CallError, Network, NodeId},
    limits::EVENT_BYTES_MAX,
};

use crate::fixture::{
    PEER, anywhere, append, call, echo, echoed, listen, listen_at, move_to, network, read,
};

/// Never answers.
fn silent(_: Request, _: Duration) -> BoxFuture<'static, Response> {
    std::future::pending().boxed()
}

#[tokio::test]
async fn every_call_gets_its_own_answer() {
    let settings = Settings::default();
    let peer = listen(&settings, echo);
    let (network, _) = network(&settings, peer.address).await;
    let calls = (0..500).map(|from| call(&network, read(from)));
    for (from, answer) in (0..).zip(futures::future::join_all(calls).await) {
        assert_eq!(answer, echoed(from));
    }
    assert_eq!(peer.seen(), 500);
    for bytes in [0, 1, 100_000, EVENT_BYTES_MAX] {
        let retry_after = Duration::from_micros(bytes as u64);
        let busy = Ok(Response::Append(Err(AppendError::Busy { retry_after })));
        assert_eq!(call(&network, append(bytes)).await, busy);
    }
}

#[tokio::test]
async fn a_node_learns_how_much_time_is_left() {
    fn left(_: Request, left: Duration) -> BoxFuture<'static, Response> {
        let hint = Some(NodeId(left.as_millis() as u32));
        async move { Response::ReadStream(Err(ReadError::NotOwner { hint })) }.boxed()
    }
    let settings = Settings::default();
    let peer = listen(&settings, left);
    let (network, _) = network(&settings, peer.address).await;
    for timeout_ms in [300, 2000] {
        let timeout = Duration::from_millis(timeout_ms);
        let answer = network.call(PEER, read(0), timeout).await.unwrap();
        let Response::ReadStream(Err(ReadError::NotOwner { hint: Some(NodeId(left)) })) = answer
        else {
            panic!("{answer:?}");
        };
        assert!(u64::from(left) <= timeout_ms && left > 0, "{left} of {timeout_ms}");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_unknown() {
    let settings = Settings::default();
    let peer = listen(&settings, silent);
    let (network, _) = network(&settings, peer.address).await;
    let began = Instant::now();
    let answer = network.call(PEER, read(0), Duration::from_millis(300)).await;
    assert_eq!(answer, Err(CallError::Unknown));
    assert!((250..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(peer.seen(), 1);
}

#[tokio::test]
async fn where_nobody_listens_the_call_is_refused() {
    let settings = Settings::default();
    let mut peer = listen(&settings, echo);
    let (network, _) = network(&settings, peer.address).await;
    peer.kill();
    while std::net::TcpStream::connect(peer.address).is_ok() {
        tokio::task::yield_now().await;
    }
    let many = futures::future::join_all((0..50).map(|from| call(&network, read(from)))).await;
    assert!(many.iter().all(|answer| *answer == Err(CallError::Refused)), "{many:?}");
    // No such node in the table.
    let answer = network.call(NodeId(99), read(0), Duration::from_secs(1)).await;
    assert_eq!(answer, Err(CallError::Refused));
}

#[tokio::test]
async fn a_peer_that_is_killed_leaves_its_calls_unknown_and_may_come_back() {
    let settings = Settings::default();
    let mut peer = listen(&settings, silent);
    let (network, _) = network(&settings, peer.address).await;
    let calls = futures::future::join_all((0..20).map(|from| call(&network, read(from))));
    let seen = peer.seen.clone();
    let address = peer.address;
    let killing = async move {
        while seen.load(std::sync::atomic::Ordering::SeqCst) < 20 {
            tokio::task::yield_now().await;
        }
        peer.kill();
    };
    let began = Instant::now();
    let (answers, ()) = futures::join!(calls, killing);
    assert!(answers.iter().all(|answer| *answer == Err(CallError::Unknown)), "{answers:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "it is noticed before the time is up");
    // The same port, again.
    let mut again = None;
    for _ in 0..500 {
        let free = std::net::TcpListener::bind(address).is_ok();
        if free {
            again = Some(listen_at(address, &settings, PEER, echo));
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(again.is_some(), "the port is not free again");
    assert_eq!(call(&network, read(3)).await, echoed(3));
}

#[tokio::test]
async fn an_address_that_went_to_another_node_does_no_harm() {
    let settings = Settings::default();
    let other = listen_at(anywhere(), &settings, NodeId(8), echo);
    let (network, addresses) = network(&settings, other.address).await;
    assert_eq!(call(&network, read(1)).await, Err(CallError::Refused));
    assert_eq!(other.seen(), 0);
    let peer = listen(&settings, echo);
    move_to(&addresses, peer.address).await;
    assert_eq!(call(&network, read(2)).await, echoed(2));
}

#[tokio::test]
async fn calls_under_way_are_bounded_here_and_there() {
    let few = Settings { calls_max: 2, ..Settings::default() };
    let peer = listen(&few, silent);
    let (here, _) = network(&few, peer.address).await;
    let timeout = Duration::from_millis(500);
    // Two are sent; the others find no place here in time, and were never sent.
    let mut answers =
        futures::future::join_all((0..5).map(|from| here.call(PEER, read(from), timeout))).await;
    answers.sort_by_key(|answer| *answer == Err(CallError::Refused));
    let (unknown, refused) = (Err(CallError::Unknown), Err(CallError::Refused));
    assert_eq!(answers[..2], [unknown.clone(), unknown.clone()]);
    assert_eq!(answers[2..], [refused.clone(), refused.clone(), refused.clone()]);
    assert_eq!(peer.seen(), 2);
    // Who does not know the bound is turned away at the door.
    let peer = listen(&few, silent);
    let (there, _) = network(&Settings::default(), peer.address).await;
    let mut answers =
        futures::future::join_all((0..5).map(|from| there.call(PEER, read(from), timeout))).await;
    answers.sort_by_key(|answer| *answer == Err(CallError::Refused));
    assert_eq!(answers, [unknown.clone(), unknown, refused.clone(), refused.clone(), refused]);
    assert_eq!(peer.seen(), 2);
}

#[tokio::test]
async fn a_node_says_where_it_is_and_takes_its_row_back() {
    let addresses = InMemory::default();
    let address = |process| Address { authority: format!("127.0.0.1:{process}"), process };
    let announcing = |process| {
        tokio::spawn(announce(addresses.clone(), PEER, address(process), Duration::from_millis(5)))
    };
    let is = async |due: u128| {
        let wait = async {
            while addresses.get(PEER).await.unwrap().map(|row| row.process) != Some(due) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), wait).await.expect("it is announced");
    };
    let first = announcing(1);
    is(1).await;
    addresses.put(PEER, address(9)).await.unwrap();
    is(1).await;
    first.abort();
    let next = announcing(2);
    is(2).await;
    next.abort();
}

/// It also prints what one peer and one caller do on this machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_callers_gets_its_own_answers() {
    let settings = Settings::default();
    let peer = listen(&settings, echo);
    let (network, _) = network(&settings, peer.address).await;
    let began = Instant::now();
    let callers = (0..64).map(|_| {
        let network = network.clone();
        tokio::spawn(async move {
            for from in 0..500 {
                assert_eq!(call(&network, read(from)).await, echoed(from as u32));
            }
        })
    });
    futures::future::join_all(callers).await.into_iter().for_each(|done| done.unwrap());
    println!("64 callers: {:.0} calls/s", 32_000.0 / began.elapsed().as_secs_f64());
}
