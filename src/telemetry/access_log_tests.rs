use super::*;
use std::os::fd::AsRawFd;

fn record(nth: u64) -> AccessRecord {
    AccessRecord {
        at: 1_700_000_000_000 + nth,
        request_id: RequestId::made(7, nth),
        client: IpAddr::from([192, 0, 2, 1]),
        peer: None,
        listener: "web".into(),
        method: http::Method::GET,
        host: "shop.test".into(),
        path: "/a\"b\\\n".into(),
        has_query: true,
        protocol: "HTTP/1.1",
        status: 200,
        request_bytes: 0,
        response_bytes: 17,
        duration_us: 1234,
        ttfb_us: Some(1000),
        connect_us: None,
        generation: 7,
        route: Some("web".into()),
        service: Some("shop".into()),
        version: Some("v1".into()),
        endpoint: Some(crate::endpoints::At::Ip(std::net::SocketAddr::from(([10, 0, 0, 1], 3000)))),
        reason: Some("sticky"),
        kind: Kind::Http,
        error: None,
        attempts: 1,
        hedge: None,
        user_agent: Some(bounded(b"curl/8")),
    }
}

fn to(log: &AccessLog, to: AccessLogTarget, buffer: usize) -> Result<(), String> {
    log.prepare(&Wanted { to, buffer }).map(|prepared| log.commit(prepared))
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).expect("readable");
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON value a line")).collect()
}

#[test]
fn a_record_is_one_line_of_json() {
    insta::assert_snapshot!(serde_json::to_string(&record(0)).expect("serialisable"), @r#"{"at":1700000000000,"request_id":"00000000000000070000000000000000","client":"192.0.2.1","listener":"web","method":"GET","host":"shop.test","path":"/a\"b\\\n","has_query":true,"protocol":"HTTP/1.1","status":200,"request_bytes":0,"response_bytes":17,"duration_us":1234,"ttfb_us":1000,"generation":7,"route":"web","service":"shop","version":"v1","endpoint":"10.0.0.1:3000","reason":"sticky","kind":"http","attempts":1,"user_agent":"curl/8"}"#);
}

#[test]
fn everything_submitted_before_close_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("access.log");
    let log = AccessLog::new();
    assert!(!log.enabled());
    log.submit(record(0));
    to(&log, AccessLogTarget::File(path.clone()), 10_000).expect("opened");
    assert!(log.enabled());
    for nth in 1..=5000 {
        log.submit(record(nth));
    }
    assert!(log.close(Duration::from_secs(10)));
    assert!(!log.enabled());
    let at: Vec<u64> = lines(&path).iter().map(|line| line["at"].as_u64().expect("a number")).collect();
    assert_eq!(at, (1..=5000).map(|nth| 1_700_000_000_000 + nth).collect::<Vec<_>>(), "all, in order");
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_writer_that_cannot_keep_up_drops_and_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let fifo = dir.path().join("fifo");
    let name = std::ffi::CString::new(fifo.to_str().expect("text")).expect("no NUL");
    // SAFETY: the path is a valid C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    // A reader that reads nothing: the writer blocks once the pipe is full.
    let reader = OpenOptions::new().read(true).write(true).open(&fifo).expect("opened");
    let log = AccessLog::new();
    to(&log, AccessLogTarget::File(fifo), 10).expect("opened");
    let has_room = || {
        let mut pipe = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&mut pipe, 1, 0) == 1 }
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while has_room() {
        assert!(std::time::Instant::now() < deadline, "the pipe never fills");
        log.submit(record(0));
    }
    for nth in 0..2000 {
        log.submit(record(nth));
    }
    assert!(log.dropped() > 1000, "{}", log.dropped());
    assert!(!log.close(Duration::from_millis(10)), "it cannot be written");
    drop(reader);
}

#[test]
fn the_target_changes_while_it_runs_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let log = AccessLog::new();
    to(&log, AccessLogTarget::File(one.clone()), 100).expect("opened");
    log.submit(record(1));
    let problem = to(&log, AccessLogTarget::File(dir.path().join("none/x")), 100).expect_err("no such folder");
    assert!(problem.contains("none/x"), "{problem}");
    log.submit(record(2));
    to(&log, AccessLogTarget::File(two.clone()), 100).expect("opened");
    log.submit(record(3));
    assert!(log.close(Duration::from_secs(10)));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while lines(&one).len() < 2 {
        assert!(std::time::Instant::now() < deadline, "the old writer ends what it has");
        std::thread::yield_now();
    }
    assert_eq!((lines(&one).len(), lines(&two).len()), (2, 1));
    to(&log, AccessLogTarget::Off, 100).expect("nothing to open");
    assert!(!log.enabled());
}

#[test]
fn after_a_rotation_reopen_goes_on_in_a_new_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("access.log");
    let log = AccessLog::new();
    to(&log, AccessLogTarget::File(path.clone()), 100).expect("opened");
    log.submit(record(1));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while lines(&path).is_empty() {
        assert!(std::time::Instant::now() < deadline, "written when the queue is empty");
        std::thread::yield_now();
    }
    let rotated = dir.path().join("access.log.1");
    std::fs::rename(&path, &rotated).expect("renamed");
    log.reopen();
    while !path.exists() {
        assert!(std::time::Instant::now() < deadline, "opened again");
        std::thread::yield_now();
    }
    log.submit(record(2));
    assert!(log.close(Duration::from_secs(10)));
    assert_eq!((lines(&rotated).len(), lines(&path).len()), (1, 1));
}
