use longhaul_protocol::value::Digest32;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::agent::Event;
use crate::console::tests::status;

const CODE: &str = "0AB1-C2D3-E4F5-G6H7";

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    // The box may answer before it has read all of it.
    let _ = tcp.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: 192.0.2.1\r\nconnection: close\r\n\r\n")
}

fn post(body: &str, more: &str) -> String {
    let kind = "content-type: application/x-www-form-urlencoded";
    let length = body.len();
    format!(
        "POST /network HTTP/1.1\r\nhost: 192.0.2.1\r\n{kind}\r\ncontent-length: {length}\r\n{more}connection: close\r\n\r\n{body}"
    )
}

/// Serves a page; where it is, what the agent hears, and how to stop it.
async fn serving() -> (SocketAddr, mpsc::Receiver<Event>, impl AsyncFnOnce()) {
    let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = watch::channel(status());
    let (events, heard) = mpsc::channel(16);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, CODE.as_bytes());
    let digest = Digest32(digest.as_ref().try_into().unwrap());
    let desk = Desk::new(Some(digest), 120, events);
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, receiver, desk, stop.clone()));
    (address, heard, async move || {
        stop.cancel();
        server.await.unwrap();
        drop(sender);
    })
}

fn token(page: &str) -> &str {
    let at = page.find("name=\"token\" value=\"").unwrap() + 20;
    page[at..].split('"').next().unwrap()
}

#[tokio::test]
async fn the_page_says_the_code_and_what_to_do() {
    let (address, _heard, stop) = serving().await;

    let page = ask(address, &get("/")).await;
    let elsewhere = ask(address, &get("/../../etc/passwd")).await;
    let put = ask(
        address,
        "PUT / HTTP/1.1\r\nhost: 192.0.2.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    )
    .await;
    let garbage = ask(address, "\x16\x03\x01\r\n\r\n").await;
    let rebound = ask(
        address,
        "GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
    )
    .await;

    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for expected in ["LH-101", "Plug a network cable", "aria-current=\"step\""] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(!page.contains("https://") || page.contains("https://192.0.2.1:8420"));
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    assert!(put.starts_with("HTTP/1.1 405"), "{put}");
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
    assert!(!rebound.contains("LH-101"), "{rebound}");
    stop().await;
}

#[tokio::test]
async fn whoever_has_the_claim_code_sets_an_address() {
    let (address, mut heard, stop) = serving().await;
    let form = ask(address, &get("/network")).await;
    let token = token(&form);
    let body = format!(
        "how=fixed&address=192.0.2.40&mask=255.255.255.0&gateway=192.0.2.1&claim=oab1c2d3e4f5g6h7&token={token}"
    );

    let answer = ask(address, &post(&body, "origin: http://192.0.2.1\r\n")).await;

    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert!(answer.contains("http://192.0.2.40/"), "{answer}");
    let Some(Event::NetworkSet(Some(settings))) = heard.recv().await else {
        panic!("the agent was not told");
    };
    assert_eq!(settings.to_string(), "192.0.2.40/24, gateway 192.0.2.1");
    stop().await;
}

#[tokio::test]
async fn a_hostile_peer_changes_nothing() {
    let (address, mut heard, stop) = serving().await;
    let form = ask(address, &get("/network")).await;
    let token = token(&form);
    let right = format!("how=dhcp&claim={CODE}&token={token}");
    let attacks = [
        // Another page in the customer's browser.
        (post(&right, "origin: http://evil.example\r\n"), "403"),
        (post(&right, "origin: null\r\n"), "403"),
        (post(&right, "sec-fetch-site: cross-site\r\n"), "403"),
        (post(&format!("how=dhcp&claim={CODE}"), ""), "403"),
        (post(&format!("how=dhcp&claim={CODE}&token=0"), ""), "403"),
        (
            post(&right, "").replace("host: 192.0.2.1", "host: box.evil.example"),
            "421",
        ),
        (
            post(&right, "").replace("application/x-www-form-urlencoded", "text/plain"),
            "415",
        ),
        // Too much.
        (
            post(&format!("{right}&x={}", "x".repeat(BODY_BYTES)), ""),
            "413",
        ),
        // Wrong codes, until nobody listens any more.
        (post(&format!("how=dhcp&claim=&token={token}"), ""), "403"),
        (
            post(&format!("how=dhcp&claim=0000&token={token}"), ""),
            "403",
        ),
        (
            post(&format!("how=dhcp&claim=%ff%fe&token={token}"), ""),
            "403",
        ),
        (post(&format!("how=dhcp&claim=x&token={token}"), ""), "403"),
        (post(&format!("how=dhcp&claim=y&token={token}"), ""), "403"),
        (post(&right, ""), "429"),
    ];
    for (request, code) in attacks {
        let answer = ask(address, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code}")),
            "{request}: {answer}"
        );
    }

    let markup = format!("how=fixed&address=%22%3E%3Cscript%3E&token={token}");
    let shown = ask(address, &post(&markup, "")).await;
    assert!(shown.starts_with("HTTP/1.1 422"), "{shown}");
    assert!(!shown.contains("\"><script>"), "{shown}");
    stop().await;
    let mut noticed = 0;
    while let Ok(event) = heard.try_recv() {
        assert!(matches!(event, Event::Notice { .. }), "{event:?}");
        noticed += 1;
    }
    assert_eq!(noticed, 5);
}

#[tokio::test]
async fn a_peer_that_holds_connections_leaves_room_for_others() {
    let (address, _heard, stop) = serving().await;
    let mut held = Vec::new();
    for _ in 0..4 * OF_ONE {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    // Another peer of the loopback network.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(address).await.unwrap();

    other.write_all(get("/").as_bytes()).await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(held);
    stop().await;
}

#[tokio::test]
async fn an_answer_is_handed_on_from_this_page_alone() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut asking = status();
    asking.offline.lines = vec!["LH1/0123456789AB/01/01/AAAA".to_owned()];
    let (_sender, receiver) = watch::channel(asking);
    let (answers, mut given) = mpsc::channel(1);
    let desk = Desk::new(None, 120, mpsc::channel(1).0).with_answers(answers);
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, receiver, desk, stop.clone()));
    let send = |body: &str, more: &str| post(body, more).replacen("/network", "/offline", 1);

    let page = ask(address, &get("/offline")).await;
    let token = token(&page).to_owned();
    let file = ask(address, &get("/offline/request.txt")).await;
    let stale = ask(address, &send("token=x&answer=a", "")).await;
    let foreign = send(
        &format!("token={token}&answer=a"),
        "origin: http://evil.example\r\n",
    );
    let foreign = ask(address, &foreign).await;
    let empty = ask(address, &send(&format!("token={token}&answer=+"), "")).await;
    let long = format!("token={token}&answer={}", "a".repeat(ANSWER_BYTES));
    let long = ask(address, &send(&long, "")).await;
    assert!(given.try_recv().is_err(), "none of these is an answer");
    let handed = ask(address, &send(&format!("token={token}&answer=%7B%7D"), "")).await;
    let busy = ask(address, &send(&format!("token={token}&answer=b"), "")).await;

    assert!(page.contains("<svg"), "{page}");
    assert!(file.ends_with("LH1/0123456789AB/01/01/AAAA\n"), "{file}");
    for (answer, code) in [
        (stale, "403"),
        (foreign, "403"),
        (empty, "422"),
        (long, "413"),
        (handed, "202"),
        (busy, "429"),
    ] {
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
    }
    assert_eq!(given.try_recv().unwrap(), b"{}");
    stop.cancel();
    server.await.unwrap();
}
