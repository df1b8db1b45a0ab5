//! One supervised child process with a log file. It ends with its owner: killed and reaped on drop (so also when a
//! test panics), and by the kernel when the whole test process is killed.
//!
//! It restarts nothing and waits for no readiness of its own accord: what is ready is for its owner to know
//! ([`Process::until_ready`]).

use std::fs::{self, File};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait::{self, Observation};

/// The lines of the log that an error quotes.
const TAIL: usize = 30;

/// A running child. Shared by reference: every method takes `&self`.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `LOG_DIR/NAME.log`, in a process group of its own, so that a
    /// Ctrl-C on the terminal leaves its end to us.
    ///
    /// Of `command` the program, arguments, environment variables and working directory are taken; its pipes and an
    /// `env_clear` are not.
    pub fn spawn(name: impl Into<String>, command: Command, log_dir: &Path) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;

        let name = name.into();
        let log = log_dir.join(format!("{name}.log"));
        fs::create_dir_all(log_dir).with_context(|| format!("cannot create {}", log_dir.display()))?;
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;

        // setpriv becomes the program itself (exec), so the child's pid is the program's.
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            guarded.current_dir(dir);
        }
        guarded.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);

        let child = spawn_from_lasting_thread(guarded)
            .with_context(|| format!("cannot start {name} (setpriv, of util-linux, is needed too)"))?;
        let pid = Pid::from_child(&child);
        Ok(Self { name, pid, child: Mutex::new(child), log })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that it has written so far, this run's and the earlier ones' under the same name.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The status it ended with, if it has ended.
    pub fn exit_status(&self) -> anyhow::Result<Option<ExitStatus>> {
        self.child().try_wait().with_context(|| format!("cannot ask after {}", self.name))
    }

    /// Fails, with the end of its log, if it has ended.
    pub fn ensure_running(&self) -> anyhow::Result<()> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => {
                let log = self.log();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
                bail!("{} has ended ({status}); the end of {}:\n{tail}", self.name, self.log.display())
            }
        }
    }

    /// Waits for a condition, but no longer than the process lives.
    pub async fn until_ready<O, F>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> F,
    ) -> anyhow::Result<O::Value>
    where
        O: Observation,
        F: Future<Output = O>,
    {
        // A dead process ends the wait: as a value, since an Err would be looked at again.
        wait::until(format!("{} of {}", what, self.name), limit, || {
            let look = look();
            async move {
                match look.await.into_result() {
                    Ok(value) => Ok(Ok(value)),
                    Err(seen) => self.ensure_running().map_or_else(|dead| Ok(Err(dead)), |()| Err(seen)),
                }
            }
        })
        .await?
    }

    /// Waits until its log has a line with `text`.
    pub async fn until_logged(&self, text: &str, limit: Duration) -> anyhow::Result<()> {
        self.until_ready(&format!("the log line {text:?}"), limit, || async { self.log().contains(text) }).await
    }

    /// Waits until it ends by itself.
    pub async fn wait(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let waited = wait::until(format!("{} to end", self.name), limit, || async {
            match self.exit_status() {
                Ok(None) => Err("still running"),
                Ok(Some(status)) => Ok(Ok(status)),
                Err(error) => Ok(Err(error)),
            }
        });
        waited.await?
    }

    /// SIGKILL, to it and to what it started, and waits for its end. Nothing happens if it has ended already.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        if child.try_wait()?.is_none() {
            kill_process_group(self.pid, Signal::KILL).with_context(|| format!("cannot kill {}", self.name))?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM: asks it to end. See [`Process::wait`].
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: it stands still, with its connections open, until [`Process::cont`].
    pub fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn cont(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// What it has used so far, as /proc has it.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid()).with_context(|| format!("cannot read the usage of {}", self.name))
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // Under the lock, and only while unreaped, so that the pid cannot be another's by now.
        let mut child = self.child();
        if let Some(status) = child.try_wait()? {
            bail!("{} has ended already ({status}): it cannot be sent {signal:?}", self.name);
        }
        kill_process(self.pid, signal).with_context(|| format!("cannot send {signal:?} to {}", self.name))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// Memory and processor time of one process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory now, in bytes.
    pub rss: u64,
    /// The most it ever was, in bytes.
    pub peak_rss: u64,
    /// Processor time, user and system, of all its threads.
    pub cpu: Duration,
}

impl Usage {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |key: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|rest| rest.split_whitespace().next()).ok_or_else(|| anyhow!("no {key}"))?;
            Ok(number.parse::<u64>()? * 1024)
        };
        // Nanoseconds of all threads; /proc/PID/stat has them in ticks of 10 ms only.
        let mut cpu = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            cpu += schedstat.split_whitespace().next().map_or(Ok(0), str::parse::<u64>)?;
        }
        Ok(Self { rss: kib("VmRSS:")?, peak_rss: kib("VmHWM:")?, cpu: Duration::from_nanos(cpu) })
    }
}

/// The kernel sends a child its parent-death signal when the *thread* that started it ends, and a test's thread may
/// end before a bed that outlives it. So all children are started by one thread that lasts as long as the process.
fn spawn_from_lasting_thread(command: Command) -> anyhow::Result<Child> {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("bed-spawner".to_owned())
            .spawn(move || {
                for (mut command, reply) in queue {
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        jobs
    });
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).map_err(|_| anyhow!("the spawning thread has ended"))?;
    Ok(answer.recv()??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BedDir;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(dir: &BedDir, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("shell", command, &dir.logs()).unwrap()
    }

    #[tokio::test]
    async fn an_early_end_is_told_with_the_log() {
        let dir = BedDir::create(None).unwrap();
        let process = shell(&dir, "echo the reason >&2; exit 3");
        let error = process.until_ready("nothing", LIMIT, || async { false }).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("the reason"), "{error}");
    }

    #[tokio::test]
    async fn stop_cont_and_terminate() {
        let dir = BedDir::create(None).unwrap();
        let process = shell(&dir, "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.02; done");
        process.until_logged("up", LIMIT).await.unwrap();
        process.stop().unwrap();
        process.terminate().unwrap();
        let error = process.wait(Duration::from_millis(150)).await.unwrap_err().to_string();
        assert!(error.contains("still running"), "{error}");
        process.cont().unwrap();
        assert!(process.wait(LIMIT).await.unwrap().success());
        assert!(process.log().contains("asked"));
        assert!(process.terminate().is_err(), "nobody is there to be asked");
    }

    #[tokio::test]
    async fn a_drop_ends_it_and_its_children() {
        let dir = BedDir::create(None).unwrap();
        let process = shell(&dir, "sleep 600 & echo $!; wait");
        let child = process
            .until_ready("the child's pid", LIMIT, || async { process.log().trim().parse::<u32>().ok() })
            .await
            .unwrap();
        let pids = [process.pid(), child];
        drop(process);
        for pid in pids {
            wait::until(format!("{pid} to end"), LIMIT, || async { gone(pid) }).await.unwrap();
        }
    }

    fn gone(pid: u32) -> bool {
        // An orphan may stay a zombie where nobody reaps: dead all the same.
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
            || !Path::new(&format!("/proc/{pid}")).exists()
    }
}
