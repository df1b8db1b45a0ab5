//! The board of questions alone, without a server: what is asked, and by whom.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

use super::*;

type Board = Arc<Flights<u32, u32>>;

fn board(remember_for: Duration, remember_weight: usize) -> Board {
    Arc::new(Flights::new(remember_for, remember_weight))
}

async fn follow<V>(joined: Joined<V>) -> Outcome<V> {
    match joined {
        Joined::Remembered(answer) => Ok(answer),
        Joined::Under(flight) | Joined::Started(flight) => flight.await,
    }
}

/// Asks `key`; the answer is `value` and the asking is counted.
fn ask(board: &Board, asked: &Arc<AtomicUsize>, key: u32, value: u32) -> Joined<u32> {
    let asked = Arc::clone(asked);
    board.join(key, |_| 0, async move {
        asked.fetch_add(1, Ordering::SeqCst);
        Ok(value)
    })
}

#[tokio::test(start_paused = true)]
async fn an_answer_serves_the_same_question_for_a_moment() {
    let (board, asked) = (board(Duration::from_secs(2), 100), Arc::default());
    assert_eq!(*follow(ask(&board, &asked, 1, 10)).await.unwrap(), 10);
    assert_eq!(*follow(ask(&board, &asked, 1, 11)).await.unwrap(), 10);
    assert_eq!(*follow(ask(&board, &asked, 2, 20)).await.unwrap(), 20);
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    tokio::time::advance(Duration::from_millis(1_999)).await;
    assert_eq!(*follow(ask(&board, &asked, 1, 12)).await.unwrap(), 10);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(*follow(ask(&board, &asked, 1, 13)).await.unwrap(), 13);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded_by_weight_and_the_oldest_goes_first() {
    let (board, asked) = (board(Duration::from_secs(2), 10), Arc::default());
    for key in 0..1_000 {
        follow(ask(&board, &asked, key, key)).await.unwrap();
        let board = board.board();
        assert!(board.weight <= 10);
        assert_eq!(board.recent.len(), board.order.len());
    }
    asked.store(0, Ordering::SeqCst);
    for key in 990..1_000 {
        follow(ask(&board, &asked, key, 0)).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the latest ten are there");

    // Too heavy to be kept at all, and it must not push the bound.
    follow(board.join(5_000, |_| 10, async { Ok(1) })).await.unwrap();
    assert!(board.board().weight <= 10);
    assert!(board.board().in_flight.is_empty());
}

#[tokio::test]
async fn questions_in_flight_are_shared_and_errors_forgotten() {
    let board = board(Duration::from_secs(2), 100);
    let (answer, answered) = oneshot::channel();
    let first = board.join(1, |_| 0, async move { answered.await.unwrap() });
    let second = board.join(1, |_| 0, async { panic!("asked twice") });
    assert!(matches!(first, Joined::Started(_)));
    assert!(matches!(second, Joined::Under(_)));
    answer.send(Err(QueryError::NotJson)).unwrap();
    let (first, second) = futures::join!(follow(first), follow(second));
    assert_eq!(first, Err(QueryError::NotJson));
    assert_eq!(second, Err(QueryError::NotJson));

    let again = board.join(1, |_| 0, async { Ok(7) });
    assert!(matches!(again, Joined::Started(_)), "an error is not kept");
    assert_eq!(*follow(again).await.unwrap(), 7);
}

#[tokio::test]
async fn a_question_goes_on_while_anybody_waits_and_ends_when_nobody_does() {
    let board = board(Duration::from_secs(2), 100);
    let (answer, answered) = oneshot::channel();
    let first = board.join(1, |_| 0, async move { answered.await.unwrap() });
    let second = board.join(1, |_| 0, async { panic!("asked twice") });
    // The one who started it leaves, having polled it or not.
    drop(first);
    answer.send(Ok(5)).unwrap();
    assert_eq!(*follow(second).await.unwrap(), 5);

    let (abandoned, listens) = oneshot::channel::<()>();
    let only = board.join(2, |_| 0, async move {
        let _held = abandoned;
        std::future::pending().await
    });
    drop(only);
    assert!(listens.await.is_err(), "its future is dropped");
    assert!(board.board().in_flight.is_empty());
    let anew = board.join(2, |_| 0, async { Ok(6) });
    assert_eq!(*follow(anew).await.unwrap(), 6);
}
