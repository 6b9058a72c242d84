//! Figures beside what was wanted of them.

/// One figure of the summary.
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) measured: String,
    pub(crate) wanted: String,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// There was nothing to compare it with.
    None,
}

impl Verdict {
    pub(crate) fn of(met: Option<bool>) -> Self {
        match met {
            Some(true) => Self::Met,
            Some(false) => Self::Missed,
            None => Self::None,
        }
    }
}

/// Prints all figures as one table.
pub(crate) fn summary(figures: &[Figure]) {
    println!("\n| figure | measured | wanted | |");
    println!("|---|---|---|---|");
    for Figure { what, measured, wanted, verdict } in figures {
        let verdict = match verdict {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::None => "-",
        };
        println!("| {what} | {measured} | {wanted} | {verdict} |");
    }
}

/// The middle one; `None` of nothing.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
