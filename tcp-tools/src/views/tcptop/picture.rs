//! How the view looks on a terminal.

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row as Line, Table, Width, presets,
};

use super::{Args, By, Shown, Sort, Tcptop, columns_of};
use crate::{
    output::Align,
    views::{Context, Picture, Reaction, Row},
};

/// What somebody wants to see, as far as keys change it.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) by: By,
    sort: Sort,
    /// The same interval is shown until somebody has seen enough of it, and then a longer one.
    pub(super) is_paused: bool,
    /// Rows at most, whatever fits.
    most: usize,
    /// The rows that the last picture had room for, if there was one.
    fits: usize,
}

impl Look {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            by: args.by,
            sort: args.sort,
            is_paused: false,
            most: args.rows.map_or(usize::MAX, usize::from),
            fits: usize::MAX,
        }
    }

    /// How rows are made, and how many: no more than the last picture had room for, if there was one.
    pub(super) fn of_rows(&self) -> (By, Sort, usize) {
        (self.by, self.sort, self.most.min(self.fits))
    }

    /// What it is, and the keys that change it.
    fn line(&self) -> String {
        let pause = if self.is_paused { "PAUSED" } else { "pause" };
        let (by, sort) = (self.by.name(), self.sort.name());
        format!("[b]y {by}  [s]ort {sort}  [p] {pause}  [q]uit")
    }
}

impl Picture for Tcptop {
    fn draw(&mut self, width: u16, height: u16, context: &mut Context) -> String {
        let mut lines = Vec::new();
        if !self.args.nosummary {
            lines.push(self.summary(context));
        }
        lines.push(self.look.line());
        self.look.fits = usize::from(height).saturating_sub(lines.len() + 1);
        let rows = self.ranked(context);
        let table = self.table(&rows, width).to_string();
        lines.extend(table.lines().map(|line| line.trim_end().to_owned()));
        lines.truncate(height.into());
        lines.join("\n")
    }

    fn key(&mut self, key: u8) -> Reaction {
        const INTERRUPT: u8 = 3;
        let look = &mut self.look;
        match key {
            b'q' | b'Q' | INTERRUPT => return Reaction::Quit,
            b's' => look.sort = look.sort.next(),
            b'b' => {
                look.by = look.by.next();
                // What was asked for by name exists in all of them.
                if let Ok(columns) = columns_of(&self.args, look.by) {
                    self.writer.set_columns(columns);
                }
            }
            b'p' => look.is_paused = !look.is_paused,
            _ => return Reaction::None,
        }
        Reaction::Redraw
    }
}

impl Tcptop {
    /// A line a row, none wider than `width`: what is too long is cut.
    fn table(&mut self, rows: &[Row<Shown>], width: u16) -> Table {
        let columns = self.writer.columns().to_vec();
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_truncation_indicator("…")
            .set_width(width);
        let one_line = |cells: Vec<Cell>| {
            let mut line = Line::from(cells);
            line.max_height(1);
            line
        };
        table.set_header(one_line(
            columns.iter().map(|it| Cell::new(it.header)).collect(),
        ));
        for row in rows {
            let cells = columns.iter().map(|it| {
                let value = (it.get)(row);
                Cell::new(self.writer.shown(&value))
            });
            table.add_row(one_line(cells.collect()));
        }
        let least: usize = columns.iter().map(|it| it.width + 1).sum();
        for (shown, column) in table.column_iter_mut().zip(&columns) {
            shown.set_padding((0, 1));
            if column.align == Align::Right {
                shown.set_cell_alignment(CellAlignment::Right);
            }
            // Where there is room, columns stay where they are from one picture to the next.
            if least <= width.into() {
                let width = u16::try_from(column.width + 1).unwrap_or(u16::MAX);
                shown.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
            }
        }
        table
    }
}
