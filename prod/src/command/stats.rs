//! `stormkeep stats`.

use clap::Args;

use super::{
    Failure,
    client::{Call, Server},
    say,
};

/// What the server counts, and whether it is ready
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Also what is zero
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: Server,
}

impl StatsArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.server.client()?;
        let ready = client.send(&Call::get("/health/ready".into())).await?;
        say(&match ready.status.is_success() {
            true => "ready".into(),
            false => format!("not ready: {}", ready.detail()),
        })?;
        let metrics = client.send(&Call::get("/metrics".into())).await?.well()?;
        for (name, value) in figures(&String::from_utf8_lossy(&metrics.body), self.all) {
            say(&format!("{value:>16}  {name}"))?;
        }
        Ok(())
    }
}

/// The series that are single numbers.
fn figures(text: &str, all: bool) -> Vec<(&str, &str)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    let single = pairs.filter(|(name, _)| !name.contains("_bucket{"));
    single.filter(|(_, value)| all || *value != "0").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_zeros_are_left_out() {
        let text = "# HELP a b\na 1\nb 0\nc_bucket{le=\"1\"} 4\nd{x=\"y z\"} 2\n";
        assert_eq!(figures(text, false), [("a", "1"), ("d{x=\"y z\"}", "2")]);
        assert_eq!(figures(text, true).len(), 3);
    }
}
