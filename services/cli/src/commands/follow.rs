//! Following a run to its end, as `run` and `watch` do: progress, logs, Ctrl-C, the result.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use windlass_api::run::v1::{CancelRunRequest, FailureClass, Run, RunState, StepState};

use super::exit_of;
use super::logs::{last_lines, mark_text};
use crate::client::{Patience, Session, Tail, TailItem, TailOptions, Watch, WatchItem};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, Prefixes};
use crate::progress::model::{Model, is_terminal, newest};
use crate::progress::terminal::{Terminal, printable};
use crate::progress::{failure, plain, rows};

/// How often the terminal is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// How long the logs may be silent before the rest is not waited for, once the run has ended.
const LOG_DRAIN: Duration = Duration::from_secs(5);

/// The same where the logs are what is wanted: a log relay may be starting again.
const RAW_DRAIN: Duration = Duration::from_secs(60);

/// Rows of the tree that stays, and of the result table.
const RESULT_ROWS: usize = 60;

/// Steps up to which the upstream steps are asked for.
const LISTED_STEPS: usize = 500;

/// What Ctrl-C does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnInterrupt {
    /// Stop watching.
    Detach,
    /// Cancel the run; a second one leaves.
    Cancel,
}

/// How to follow.
#[derive(Clone, Debug)]
pub(super) struct FollowOptions {
    /// Whether to print the steps' logs.
    pub(super) logs: bool,
    /// When to stop.
    pub(super) timeout: Option<Duration>,
    /// What Ctrl-C does.
    pub(super) interrupt: OnInterrupt,
    /// Print nothing but notes.
    pub(super) quiet: bool,
    /// Options that make printed commands reach the same server.
    pub(super) flags: String,
}

enum Screen {
    Terminal(Terminal),
    Plain {
        started: bool,
    },
    /// The logs as they are on standard output, everything else on standard error.
    Raw {
        started: bool,
    },
    Quiet,
}

/// A run that is followed.
pub(super) struct Follow<'a> {
    session: &'a Session,
    run: Run,
    options: FollowOptions,
    model: Model,
    screen: Screen,
    tail: Option<Tail>,
    prefixes: Prefixes,
    /// Lines that wait for the next frame.
    pending: Vec<String>,
    note: Option<String>,
    cancelled: bool,
    enriched: bool,
}

impl<'a> Follow<'a> {
    pub(super) fn new(session: &'a Session, run: Run, options: FollowOptions) -> Self {
        let term = console::Term::stdout();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let screen = if options.quiet {
            Screen::Quiet
        } else if term.is_term() && !dumb {
            Screen::Terminal(Terminal::new(match options.interrupt {
                OnInterrupt::Detach => "Ctrl-C detaches",
                OnInterrupt::Cancel => "Ctrl-C cancels",
            }))
        } else {
            Screen::Plain { started: false }
        };
        let tail = (options.logs && !options.quiet).then(|| {
            let options = TailOptions {
                run: run.id.clone(),
                follow: true,
                ..TailOptions::default()
            };
            Tail::start(session, options)
        });
        Self {
            session,
            run,
            options,
            model: Model::default(),
            screen,
            tail,
            prefixes: Prefixes::default(),
            pending: Vec::new(),
            note: None,
            cancelled: false,
            enriched: false,
        }
    }

    /// Prints what the steps print as it is, and everything else to standard error.
    pub(super) fn raw(mut self) -> Self {
        let options = TailOptions {
            run: self.run.id.clone(),
            follow: true,
            ..TailOptions::default()
        };
        self.tail = Some(Tail::start(self.session, options));
        self.screen = Screen::Raw { started: false };
        self
    }

    /// Follows to the end; the exit status of the run.
    pub(super) async fn run(mut self) -> Result<Exit> {
        let result = self.follow().await;
        match result {
            Ok(exit) => Ok(exit),
            Err(error) => {
                if let Screen::Terminal(terminal) = &mut self.screen {
                    // What is drawn stays as the last known state; who detached has seen it.
                    if error.exit != Exit::BrokenPipe && !error.message.is_empty() {
                        terminal.draw(&self.model, self.session.clock.now(), None)?;
                        terminal.leave()?;
                    }
                }
                if error.exit == Exit::BrokenPipe && self.options.interrupt == OnInterrupt::Cancel {
                    self.cancel("nobody reads the output any more").await?;
                }
                Err(error)
            }
        }
    }

    async fn follow(&mut self) -> Result<Exit> {
        let mut watch = Watch::start(self.session, &self.run.id);
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut interrupts = Interrupts::listen()?;
        let deadline = self.options.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            tokio::select! {
                item = watch.next() => match item {
                    Some(item) => {
                        if self.watched(item?).await? {
                            return self.finish().await;
                        }
                    }
                    None => return Err(CliError::failed(format!("the watch of run {} stopped", self.run.name))),
                },
                item = next_item(&mut self.tail) => self.tailed(item)?,
                _ = frames.tick() => self.draw()?,
                () = interrupts.next() => {
                    if let Some(error) = self.interrupted().await? {
                        return Err(error);
                    }
                }
                () = sleep_until(deadline) => return Err(self.timed_out().await?),
            }
        }
    }

    /// Takes in an item of the watch; true at the end.
    async fn watched(&mut self, item: WatchItem) -> Result<bool> {
        let change = self.model.apply(&item);
        match item {
            WatchItem::Synced => self.synced().await?,
            WatchItem::Lost { cause } => {
                let text = format!("{} does not answer ({cause}), trying again", self.session.address());
                self.say(text);
            }
            WatchItem::Back => {
                self.note = None;
                if !matches!(self.screen, Screen::Terminal(_)) {
                    output::note("the server is back");
                }
            }
            WatchItem::Ended(_) => return Ok(true),
            WatchItem::Deleted => {
                return Err(CliError::bad_input(format!(
                    "run {} was deleted while it was watched",
                    self.run.name
                )));
            }
            WatchItem::Reset | WatchItem::Snapshot { .. } | WatchItem::Event(_) => {}
        }
        let told = change.filter(|change| match self.screen {
            Screen::Plain { .. } => true,
            // How it ends is said at once with the result.
            Screen::Raw { .. } => self
                .model
                .step(change.index)
                .is_some_and(|step| !is_terminal(step.state())),
            Screen::Terminal(_) | Screen::Quiet => false,
        });
        if let Some(change) = told {
            let width = plain::name_width(&self.model);
            if let Some(text) = plain::change_line(&self.model, &change, width) {
                self.tell(text)?;
            }
        }
        Ok(false)
    }

    async fn synced(&mut self) -> Result<()> {
        if let Screen::Plain { started } | Screen::Raw { started } = &mut self.screen
            && !std::mem::replace(started, true)
        {
            self.tell(rows::head(&self.model))?;
        }
        let mute = |step: &windlass_api::run::v1::Step| {
            step.state() == StepState::Waiting && step.message.is_empty() && step.upstream.is_empty()
        };
        let wanted = self.model.steps().any(mute) && self.model.steps().count() <= LISTED_STEPS;
        if wanted && !std::mem::replace(&mut self.enriched, true) {
            let steps = self.session.list_steps(&self.run.id, "", LISTED_STEPS).await?;
            self.model.enrich(&steps);
        }
        Ok(())
    }

    /// A line of the progress or of the result.
    fn tell(&self, text: impl AsRef<str>) -> Result<()> {
        match self.screen {
            Screen::Raw { .. } if console::colors_enabled_stderr() => output::note(text),
            Screen::Raw { .. } => output::note(console::strip_ansi_codes(text.as_ref())),
            Screen::Terminal(_) | Screen::Plain { .. } | Screen::Quiet => output::line(text)?,
        }
        Ok(())
    }

    fn tailed(&mut self, item: Option<Result<TailItem>>) -> Result<()> {
        match item {
            Some(Ok(TailItem::Line {
                source,
                content,
                partial,
                ..
            })) => {
                let prefix = match self.screen {
                    Screen::Raw { .. } => String::new(),
                    Screen::Terminal(_) | Screen::Plain { .. } | Screen::Quiet => self.prefixes.prefix(&source),
                };
                if matches!(self.screen, Screen::Terminal(_)) {
                    self.pending.push(format!("{prefix}{}", printable(&content)));
                    if self.pending.len() >= 200 {
                        self.flush()?;
                    }
                } else {
                    let mut text = prefix.into_bytes();
                    text.extend_from_slice(&content);
                    if !partial || !matches!(self.screen, Screen::Raw { .. }) {
                        text.push(b'\n');
                    }
                    output::raw(&text)?;
                }
            }
            Some(Ok(TailItem::Mark { source, mark })) => {
                if let Some(text) = mark_text(source.as_ref(), &mark) {
                    self.say_once(text)?;
                }
            }
            Some(Ok(TailItem::Checkpoint(_) | TailItem::Lost { .. } | TailItem::Back)) => {}
            Some(Ok(TailItem::End { .. })) | None => self.tail = None,
            // The progress is worth more than the logs: it goes on without them.
            Some(Err(error)) => {
                self.tail = None;
                self.say_once(format!("the logs cannot be shown: {}", error.message))?;
            }
        }
        Ok(())
    }

    fn say(&mut self, text: String) {
        match self.screen {
            Screen::Terminal(_) => self.note = Some(text),
            Screen::Plain { .. } | Screen::Raw { .. } | Screen::Quiet => output::note(text),
        }
    }

    fn say_once(&mut self, text: String) -> Result<()> {
        match &mut self.screen {
            Screen::Terminal(terminal) => terminal.above(&[text])?,
            Screen::Plain { .. } | Screen::Raw { .. } | Screen::Quiet => output::note(text),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Screen::Terminal(terminal) = &mut self.screen
            && !self.pending.is_empty()
        {
            terminal.above(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    fn draw(&mut self) -> Result<()> {
        self.flush()?;
        if let Screen::Terminal(terminal) = &mut self.screen
            && self.model.is_synced()
        {
            terminal.draw(&self.model, self.session.clock.now(), self.note.as_deref())?;
        }
        Ok(())
    }

    /// Ctrl-C: an error ends the watch.
    async fn interrupted(&mut self) -> Result<Option<CliError>> {
        let name = self.run.name.clone();
        match self.options.interrupt {
            OnInterrupt::Detach => {
                self.draw()?;
                let flags = &self.options.flags;
                if let Screen::Terminal(terminal) = &mut self.screen {
                    terminal.leave()?;
                }
                self.tell(format!(
                    "detached: run {name} goes on\n  watch   windlass watch {name}{flags}\n  cancel  windlass cancel {name}{flags}"
                ))?;
                Ok(Some(CliError::new(Exit::Interrupted, "")))
            }
            OnInterrupt::Cancel if self.cancelled => {
                self.draw()?;
                Ok(Some(CliError::new(
                    Exit::Interrupted,
                    format!("left before run {name} was cancelled in order"),
                )))
            }
            OnInterrupt::Cancel => {
                self.cancelled = true;
                self.say_once(format!("cancelling run {name} in order; Ctrl-C again leaves at once"))?;
                self.cancel("interrupted").await?;
                Ok(None)
            }
        }
    }

    async fn cancel(&self, reason: &str) -> Result<()> {
        let request = CancelRunRequest {
            namespace: self.session.namespace.clone(),
            run: self.run.id.clone(),
            request_id: super::request_id(),
            reason: reason.to_owned(),
            grace: None,
        };
        let cancelled = self
            .session
            .call(Patience::USUAL, |mut client| {
                let request = request.clone();
                async move { client.cancel_run(request).await }
            })
            .await;
        match cancelled {
            // It ended by itself meanwhile.
            Err(error) if error.exit == Exit::BadInput => Ok(()),
            other => other.map(drop),
        }
    }

    async fn timed_out(&mut self) -> Result<CliError> {
        let name = self.run.name.clone();
        let timeout = self.options.timeout.unwrap_or_default();
        let error = CliError::new(
            Exit::Timeout,
            format!(
                "run {name} has not ended within {}",
                humantime::format_duration(timeout)
            ),
        );
        if self.options.interrupt == OnInterrupt::Cancel {
            self.cancel("the time given to `windlass run --timeout` was over")
                .await?;
            return Ok(error.hint("it was cancelled"));
        }
        let flags = &self.options.flags;
        Ok(error.hint(format!(
            "it goes on; `windlass watch {name}{flags}` watches it, `windlass cancel {name}{flags}` ends it"
        )))
    }

    async fn finish(&mut self) -> Result<Exit> {
        self.drain_logs().await?;
        let now = self.session.clock.now();
        let failed = self.model.run().state() == RunState::Failed;
        let width = match &mut self.screen {
            Screen::Terminal(terminal) => {
                terminal.finish(&self.model, now, RESULT_ROWS)?;
                11
            }
            Screen::Plain { .. } => {
                output::line("")?;
                output::line(plain::result_table(&self.model, now, RESULT_ROWS))?;
                output::line("")?;
                plain::name_width(&self.model)
            }
            Screen::Raw { .. } => plain::name_width(&self.model),
            Screen::Quiet => return Ok(exit_of(self.model.run())),
        };
        if failed {
            self.report_failures(width).await?;
        }
        self.tell(rows::verdict(&self.model, now))?;
        if failed {
            let first = failure::failed_steps(&self.model).first().copied();
            let reusable = super::retry::reusable(self.session, &self.run.id).await;
            let flags = &self.options.flags;
            self.tell(failure::commands(&self.run.name, first, reusable, flags))?;
        }
        Ok(exit_of(self.model.run()))
    }

    async fn report_failures(&self, name_width: usize) -> Result<()> {
        let now = self.session.clock.now();
        for step in failure::failed_steps(&self.model) {
            self.tell(failure::step_line(step, name_width, now))?;
            let Some(attempt) = newest(step) else { continue };
            let lines = match self.screen {
                // They stand above, and say what Kubernetes cannot know.
                Screen::Raw { .. } if attempt.failure_class() == FailureClass::UserError => continue,
                Screen::Raw { .. } => Vec::new(),
                Screen::Terminal(_) | Screen::Plain { .. } | Screen::Quiet => {
                    let (run, lines) = (&self.run.id, failure::LOG_LINES);
                    last_lines(self.session, run, &step.name, attempt.number, lines).await
                }
            };
            let lines = if lines.is_empty() {
                failure::without_log(attempt)
            } else {
                lines
            };
            for line in lines {
                self.tell(failure::log_line(&line))?;
            }
        }
        if let Some(further) = failure::further(&self.model) {
            self.tell(further)?;
        }
        Ok(())
    }

    async fn drain_logs(&mut self) -> Result<()> {
        let patience = match self.screen {
            Screen::Raw { .. } => RAW_DRAIN,
            Screen::Terminal(_) | Screen::Plain { .. } | Screen::Quiet => LOG_DRAIN,
        };
        while self.tail.is_some() {
            match tokio::time::timeout(patience, next_item(&mut self.tail)).await {
                Ok(item) => self.tailed(item)?,
                Err(_) => {
                    self.tail = None;
                    self.say_once(format!(
                        "the rest of the logs did not come; `windlass logs {}` shows them",
                        self.run.name
                    ))?;
                }
            }
        }
        self.flush()
    }
}

async fn next_item(tail: &mut Option<Tail>) -> Option<Result<TailItem>> {
    match tail {
        Some(tail) => tail.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Ctrl-C, and the signals by which a terminal or a supervisor says the same.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
