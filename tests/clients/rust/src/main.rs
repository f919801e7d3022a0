//! `stormkeep-client-check URL`: the samples of the published Rust client, as they are, and our own check.

mod check;

include!(concat!(env!("OUT_DIR"), "/published.rs"));

fn url() -> String {
    std::env::args().nth(1).expect("the connection string of the server is the only argument")
}

fn main() -> eyre::Result<()> {
    println!("the README of kurrentdb 1.2.0, its connection string replaced by {}", url());
    readme::run().map_err(|error| eyre::eyre!("README: {error}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("tests/api/streams.rs of kurrentdb 1.2.0");
        let client = kurrentdb::Client::new(url().parse()?)?;
        streams::tests(client).await?;
        println!("tests/api/persistent_subscriptions.rs of kurrentdb 1.2.0");
        persistent_subscriptions::tests(kurrentdb::Client::new(url().parse()?)?).await?;
        check::run(&kurrentdb::Client::new(url().parse()?)?).await
    })
}
