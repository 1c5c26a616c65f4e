//! A stand-in for a box, for trying clients: a file-backed S3 server behind TLS, with a ticket.
//!
//! Prints the ticket's path, the address and the folder of the objects, and serves until its
//! standard input ends.

#[path = "../tests/support/mod.rs"]
mod support;

#[tokio::main]
async fn main() {
    // With its address in the certificate, so that clients which know no other name can be tried.
    let name = longhaul_sdk::protocol::ticket::lan_name(&support::box_id(1));
    let names = vec![name, "127.0.0.1".to_owned()];
    let test_box = support::TestBox::start_named(&support::Authority::new(), names).await;
    println!("{}", test_box.ticket_path().display());
    println!("{}", test_box.url());
    println!(
        "{}",
        test_box
            .dir
            .path()
            .join("objects")
            .join(support::BUCKET)
            .display()
    );
    let end =
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let _ = end.await;
}
