//! A process that is started, killed, stopped, and let go on.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// Bytes of a log that are shown when its process ended by itself.
const LAST_WORDS: u64 = 2000;

/// Credentials for a stand-in, which takes any. Without them the SDK asks the machine for real ones.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "stand-in"),
    ("AWS_SECRET_ACCESS_KEY", "stand-in"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// See the module's docs. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
    stopped: bool,
}

impl Server {
    /// A process that does not run yet; what it says goes to the end of a file.
    pub(super) fn new(program: PathBuf, arguments: Vec<OsString>, log: PathBuf) -> Self {
        Server { program, arguments, log, child: None, stopped: false }
    }

    /// Starts it, unless it runs.
    pub(super) fn start(&mut self) -> io::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(ENVIRONMENT.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends it as a crash does.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.stopped = false;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait().map(drop)
    }

    /// It stands still: SIGSTOP.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.stopped = true;
        self.signal(Signal::STOP)
    }

    /// It goes on: SIGCONT.
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.stopped) {
            return Ok(());
        }
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
        kill_process(pid, signal).map_err(io::Error::from)
    }

    /// Whether it is there, standing still or not.
    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// If it ended by itself: how, and its last words.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        let words = self.last_words().unwrap_or_default();
        Some(format!("{} ended by itself: {status}: {words}", self.program.display()))
    }

    fn last_words(&self) -> io::Result<String> {
        let mut log = File::open(&self.log)?;
        let end = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(end.saturating_sub(LAST_WORDS)))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}
