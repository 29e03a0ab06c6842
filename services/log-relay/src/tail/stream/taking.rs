//! Records become what the client gets: lines that it wants, marks in their places, sources described once.

use super::*;

impl Reader {
    pub(super) async fn take(&mut self, slot: usize, block: &Block) -> Result<(), Stop> {
        if self.takes_whole(slot, block) {
            return self.take_whole(slot, block).await;
        }
        for (place, record) in block.records() {
            if self.sources[slot].is_before(place) {
                continue;
            }
            match record {
                Record::Line(line) => self.take_line(slot, place, line).await?,
                Record::Mark(mark) => self.take_mark(slot, place, mark).await?,
                Record::End { .. } => continue,
            }
            self.sources[slot].passed(place);
        }
        Ok(())
    }

    /// Whether all of a block is sent, and nothing but lines.
    fn takes_whole(&self, slot: usize, block: &Block) -> bool {
        let next = &self.sources[slot].next;
        let at_start = next.line == block.start.line && next.mark <= block.start.mark;
        at_start && block.is_plain() && block.end.line > block.start.line && self.selection.is_unfiltered()
    }

    async fn take_whole(&mut self, slot: usize, block: &Block) -> Result<(), Stop> {
        self.describe(slot).await?;
        let number = self.sources[slot].number();
        self.batch.push_block(number, block);
        self.lines += block.end.line - block.start.line;
        self.bytes += block.end.offset - block.start.offset;
        let source = &mut self.sources[slot];
        source.next = SourcePosition {
            line: block.end.line,
            mark: block.end.mark,
            offset: block.end.offset,
        };
        source.record_from(block.end);
        self.moved = true;
        if self.batch.is_full() {
            self.flush().await?;
        }
        Ok(())
    }

    async fn take_line(&mut self, slot: usize, place: Place, line: LineRecord) -> Result<(), Stop> {
        let next = &mut self.sources[slot].next;
        if place.line < next.line {
            return Ok(());
        }
        let length = line.length();
        if self.wants(slot, &line) {
            if self.selection.max_bytes > 0 && self.bytes + length > self.selection.max_bytes {
                return Err(Stop::Limit);
            }
            self.describe(slot).await?;
            self.lines += 1;
            self.bytes += length;
            let number = self.sources[slot].number();
            self.batch.push(number, place, line);
        }
        let next = &mut self.sources[slot].next;
        next.line = place.line + 1;
        next.offset = place.offset + length;
        next.mark = next.mark.max(place.mark);
        self.moved = true;
        if self.selection.max_lines > 0 && self.lines >= self.selection.max_lines {
            return Err(Stop::Limit);
        }
        if self.batch.is_full() {
            self.flush().await?;
        }
        Ok(())
    }

    /// Whether a line is sent. Parts of one line go together, so that a client never joins a part with another line.
    fn wants(&mut self, slot: usize, line: &LineRecord) -> bool {
        let source = &mut self.sources[slot];
        let wanted = source.split.unwrap_or_else(|| self.selection.wants(line));
        source.split = line.partial.then_some(wanted);
        wanted
    }

    async fn take_mark(&mut self, slot: usize, place: Place, mark: MarkRecord) -> Result<(), Stop> {
        let next = &mut self.sources[slot].next;
        if place.mark < next.mark || place.line < next.line {
            return Ok(());
        }
        let kind = match mark.kind {
            StoredMark::Lost => MarkKind::Lost,
            StoredMark::Masked => MarkKind::Masked,
        };
        self.mark(slot, kind, mark.lost, &mark.message).await?;
        self.sources[slot].next.mark = place.mark + 1;
        self.moved = true;
        Ok(())
    }

    /// Tells the client of a source, once.
    pub(super) async fn describe(&mut self, slot: usize) -> Result<(), Stop> {
        let source = &mut self.sources[slot];
        if std::mem::replace(&mut source.described, true) {
            return Ok(());
        }
        let description = source.description();
        let first = source.next == SourcePosition::default()
            && source
                .log
                .containers
                .iter()
                .find(|name| self.selection.takes_container(name))
                == Some(&source.id.container);
        if !first {
            self.batch.describe(&description);
            return Ok(());
        }
        self.flush().await?;
        self.send(Message::Mark(Mark {
            kind: MarkKind::AttemptStarted.into(),
            source: description.id,
            source_description: Some(description),
            ..Mark::default()
        }))
        .await
    }

    pub(super) async fn mark(
        &mut self,
        slot: usize,
        kind: MarkKind,
        lost: Option<u64>,
        message: &str,
    ) -> Result<(), Stop> {
        self.describe(slot).await?;
        self.flush().await?;
        self.send(Message::Mark(Mark {
            kind: kind.into(),
            source: self.sources[slot].number(),
            lost_lines: lost,
            message: message.to_owned(),
            ..Mark::default()
        }))
        .await
    }

    pub(super) async fn finish(&mut self, slot: usize) -> Result<(), Stop> {
        self.mark(slot, MarkKind::SourceEnded, None, "").await?;
        let source = &mut self.sources[slot];
        source.finished = true;
        source.leave(&self.hub).await;
        self.moved = true;
        Ok(())
    }
}
