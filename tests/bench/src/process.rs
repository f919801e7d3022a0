//! Programs that the command starts, and that end with it: dropping one stops it and its children.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a stopped server may take before it is killed.
const STOP_SECONDS_MAX: u64 = 10;

/// A running program in a process group of its own.
pub struct Program {
    child: Child,
    signal: &'static str,
}

impl Program {
    /// Starts it with its output in the file `log`. Dropping it sends `signal` first, and kills it if that does not help.
    pub fn start(command: &mut Command, log: &Path, signal: &'static str) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, signal })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn send(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let _ =
            Command::new("kill").args(["-s", signal, "--", &group]).stderr(Stdio::null()).status();
    }

    /// What a crash of the process does: no handler runs.
    pub fn kill(mut self) -> Result<()> {
        self.signal = "KILL";
        self.send("KILL");
        self.child.wait().context("cannot wait for a killed server")?;
        Ok(())
    }

    /// The exit, if it is over.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.send(self.signal);
        let last = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        while self.ended().is_none() {
            if Instant::now() > last {
                self.send("KILL");
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs a script of `peers/` with its arguments until it ends. Its last line of output is the reason if it fails.
pub async fn script(name: &str, arguments: &[&Path], log: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name);
    let mut command = Command::new("bash");
    command.arg(script).args(arguments);
    forget_package(&mut command);
    run(&mut command, log).await
}

/// Takes away what `cargo run` told this process of its own package. A build inside would take it for a change: the build
/// scripts of some crates watch these variables.
pub fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO", "OUT_DIR"].contains(&&*text)
            || text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(&name);
        }
    }
}

/// Runs a program until it ends, and can be interrupted while it does.
pub async fn run(command: &mut Command, log: &Path) -> Result<()> {
    let mut program = Program::start(command, log, "TERM")?;
    loop {
        if let Some(exit) = program.ended() {
            if exit.success() {
                return Ok(());
            }
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            bail!("{}", last.unwrap_or("the install step failed and said nothing"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port of 127.0.0.1 that nothing listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until `ready` says so. Ends early when the server does, with the end of its log.
pub async fn until_ready(
    program: &mut Program,
    log: &Path,
    seconds_max: u64,
    mut ready: impl AsyncFnMut() -> bool,
) -> Result<()> {
    let last = Instant::now() + Duration::from_secs(seconds_max);
    loop {
        if ready().await {
            return Ok(());
        }
        if let Some(exit) = program.ended() {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            bail!(
                "the server ended ({exit}): {}",
                lines[lines.len().saturating_sub(3)..].join(" / ")
            );
        }
        if Instant::now() > last {
            bail!("the server was not ready after {seconds_max} s");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether something accepts connections there.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The answer to a request, head and body.
fn http(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The status of `GET path`, 0 if there was no answer.
pub fn http_status(port: u16, path: &str) -> u16 {
    status(&http(port, "GET", path, "").unwrap_or_default())
}

/// The status of `PUT path` with a body of JSON.
pub fn http_put(port: u16, path: &str, body: &str) -> Result<u16> {
    Ok(status(&http(port, "PUT", path, body)?))
}

/// The body of the answer to `GET path`.
pub fn http_body(port: u16, path: &str) -> Result<String> {
    let answer = http(port, "GET", path, "")?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    Ok(body.to_owned())
}

/// Memory of a process that is in RAM, bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .context("the process has no VmRSS line: it ended")?
        .trim()
        .parse()?;
    Ok(kib << 10)
}

/// CPU time that a process, and its children if so wanted, have used, in ticks of 10 ms (`USER_HZ`, 100 on every Linux that Rust runs on).
pub fn cpu_ticks(pid: u32, with_children: bool) -> u64 {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may hold spaces and brackets: the numbered fields begin after the last bracket, with the third.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        if number == pid {
            // Its own time, then that of children that ended.
            ticks += (14..=if with_children { 17 } else { 15 }).map(field).sum::<u64>();
        } else if with_children && field(4) == u64::from(pid) {
            ticks += field(14) + field(15);
        }
    }
    ticks
}

/// The output of a short program, trimmed, or nothing.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}
