use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use super::*;

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nhost: shop.test\r\n\r\n";

#[test]
fn the_first_answers_as_ever_and_the_second_must_be_good() {
    use Entrant::{First, Second};
    use Heard::{Failed, Fine, Gone, Nothing};
    use Verdict::{NobodyLeft, Wait, Wins};
    for (first, second, verdict) in [
        (Nothing, Nothing, Wait),
        (Nothing, Fine, Wins(Second)),
        // A bad answer is not preferred to none: the first may still be good.
        (Nothing, Failed, Wait),
        (Nothing, Gone, Wait),
        (Fine, Nothing, Wins(First)),
        (Fine, Fine, Wins(First)),
        (Fine, Failed, Wins(First)),
        (Fine, Gone, Wins(First)),
        // What would have been passed on without a second is passed on: `retry.on` has its say.
        (Failed, Nothing, Wins(First)),
        (Failed, Fine, Wins(First)),
        (Failed, Failed, Wins(First)),
        (Failed, Gone, Wins(First)),
        (Gone, Nothing, Wait),
        (Gone, Fine, Wins(Second)),
        (Gone, Failed, Wins(Second)),
        (Gone, Gone, NobodyLeft),
    ] {
        assert_eq!(decide(first, second), verdict, "{first:?} and {second:?}");
    }
}

/// What an endpoint does once it is asked: bytes after pauses, then it closes.
#[derive(Debug, Clone)]
struct Script {
    /// Milliseconds until there is a connection; for the second only.
    connects_after: u64,
    connects: bool,
    /// Each after so many milliseconds.
    pieces: Vec<(u64, Vec<u8>)>,
    /// Milliseconds until it closes, after the last piece.
    closes_after: u64,
}

impl Script {
    fn said(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|(_, piece)| piece.clone()).collect()
    }

    /// When it is known how it answers, and how.
    fn opens(&self) -> (u64, Heard) {
        let mut at = self.connects_after;
        if !self.connects {
            return (at, Heard::Gone);
        }
        let mut so_far = Vec::new();
        for (pause, piece) in &self.pieces {
            at += pause;
            so_far.extend_from_slice(piece);
            match opening(&so_far) {
                Opening::Short => {}
                Opening::Fine => return (at, Heard::Fine),
                Opening::Failed => return (at, Heard::Failed),
            }
        }
        (at + self.closes_after, Heard::Gone)
    }
}

async fn play(script: Script, mut connection: DuplexStream) {
    for (pause, piece) in script.pieces {
        sleep(Duration::from_millis(pause)).await;
        // Whoever has lost is not read to the end.
        if connection.write_all(&piece).await.is_err() {
            return;
        }
    }
    sleep(Duration::from_millis(script.closes_after)).await;
}

/// What the engine reads, what the second endpoint was sent, and the news.
async fn run(first: Script, second: Script) -> (io::Result<Vec<u8>>, Vec<u8>, News) {
    let (ours, theirs) = duplex(64);
    tokio::spawn(play(first, theirs));
    let (to_second, asked) = tokio::sync::oneshot::channel();
    let dialling = async move {
        sleep(Duration::from_millis(second.connects_after)).await;
        if !second.connects {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, mut theirs) = duplex(64);
        tokio::spawn(async move {
            let mut request = vec![0; REQUEST.len()];
            let sent = theirs.read_exact(&mut request).await.map(|_| request).unwrap_or_default();
            let _ = to_second.send(sent);
            play(second, theirs).await;
        });
        Ok(ours)
    };
    let report = Report::default();
    let mut race = Race::new(Some(ours), dialling, report.clone());
    // In two, as an engine may.
    race.write_all(&REQUEST[..9]).await.unwrap();
    race.write_all(&REQUEST[9..]).await.unwrap();
    race.flush().await.unwrap();
    let mut read = Vec::new();
    let result = race.read_to_end(&mut read).await.map(|_| read);
    let news = report.read();
    drop(race);
    (result, asked.await.unwrap_or_default(), news)
}

fn script(is_second: bool) -> impl Strategy<Value = Script> {
    let fill = if is_second { b'2' } else { b'1' };
    let beginning = prop_oneof![
        6 => Just("HTTP/1.1 200 OK\r\n\r\n"),
        2 => Just("HTTP/1.1 503 No\r\n\r\n"),
        1 => Just("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        1 => Just("SSH-2.0-OpenSSH_9\r\n"),
        1 => Just("HTTP/1.1 2"),
        1 => Just(""),
    ];
    let pieces =
        (beginning, 0..300_usize, prop::collection::vec((0..30_u64, 1..40_usize), 1..8), 0..40_u64, any::<bool>());
    (pieces, 0..30_u64, prop::bool::weighted(0.85)).prop_map(
        move |((beginning, len, cuts, closes_after, has_body), connects_after, connects)| {
            let mut text = beginning.as_bytes().to_vec();
            if has_body && text.len() > 12 {
                text.extend(std::iter::repeat_n(fill, len));
            }
            let mut pieces = Vec::new();
            let mut left = text.as_slice();
            for (pause, size) in cuts {
                let (piece, rest) = left.split_at(size.min(left.len()));
                if !piece.is_empty() {
                    pieces.push((pause, piece.to_vec()));
                }
                left = rest;
            }
            if !left.is_empty() {
                pieces.push((1, left.to_vec()));
            }
            let (connects_after, connects) = if is_second { (connects_after, connects) } else { (0, true) };
            Script { connects_after, connects, pieces, closes_after }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However the two answer: the engine reads all that one of them said and nothing of the other, and it is the
    /// one that the rules name.
    #[test]
    fn one_answer_and_never_a_byte_of_the_other(first in script(false), second in script(true)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (read, asked, news) = runtime.block_on(run(first.clone(), second.clone()));
        let ((one_at, one), (two_at, two)) = (first.opens(), second.opens());
        let known = |at: u64, when: u64, heard: Heard| if when <= at { heard } else { Heard::Nothing };
        let verdict = [one_at.min(two_at), one_at.max(two_at)].into_iter()
            .map(|at| decide(known(at, one_at, one), known(at, two_at, two)))
            .find(|verdict| *verdict != Verdict::Wait);
        // At the same moment either may be seen first.
        if one_at != two_at {
            let wanted = match verdict.expect("everybody closes") {
                Verdict::Wins(winner) => Some(winner),
                Verdict::NobodyLeft | Verdict::Wait => None,
            };
            prop_assert_eq!(news.winner, wanted);
        }
        match news.winner {
            Some(Entrant::First) => prop_assert_eq!(read.unwrap(), first.said()),
            Some(Entrant::Second) => {
                prop_assert_eq!(read.unwrap(), second.said());
                prop_assert_eq!(asked, REQUEST);
            }
            None => {
                prop_assert!(read.is_err());
                prop_assert_eq!((news.first, news.second), (Heard::Gone, Heard::Gone));
            }
        }
        prop_assert!(!news.refused || !news.connected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_loser_is_closed_when_the_winner_begins() {
    let (ours, mut slow) = duplex(64);
    let (to_second, mut fast) = duplex(64);
    let mut race = Race::new(Some(ours), async move { Ok(to_second) }, Report::default());
    race.write_all(REQUEST).await.unwrap();
    let mut byte = [0; 1];
    let mut read = Box::pin(race.read(&mut byte));
    assert!(futures_util::poll!(&mut read).is_pending());
    fast.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    assert_eq!(read.await.unwrap(), 1);
    assert_eq!(slow.read(&mut [0; 8]).await.unwrap(), 0, "its connection is closed");
    assert!(slow.write_all(b"HTTP/1.1 200 OK\r\n").await.is_err());
    // The winner's goes on until the engine lets go of it.
    let mut rest = vec![0; REQUEST.len()];
    assert_eq!(fast.read_exact(&mut rest).await.unwrap(), REQUEST.len());
    drop(race);
    assert_eq!(fast.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_comes_too_late_to_be_taken_over_does_not_race() {
    let (to_second, mut second) = duplex(256);
    let report = Report::default();
    let mut race = Race::new(None::<DuplexStream>, async move { Ok(to_second) }, report.clone());
    race.write_all(REQUEST).await.unwrap();
    second.write_all(b"HTTP/1.1 503 No\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    race.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 503");
    let news = report.read();
    assert_eq!((news.is_lost, news.winner), (true, Some(Entrant::Second)));
}

#[tokio::test]
async fn a_request_without_end_is_not_kept() {
    let (ours, _theirs) = duplex(64);
    let never = std::future::pending::<io::Result<DuplexStream>>();
    let mut race = Race::new(Some(ours), never, Report::default());
    let sent = race.write_all(&vec![b'x'; REQUEST_MAX + 1]).await;
    assert!(sent.is_err(), "more than any head");
}
