//! What is said of numbers that were measured several times.

/// The least, the middle and the greatest of several numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// `None` of no numbers.
    pub(super) fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0,
            _ => *sorted.get(middle)?,
        };
        Some(Self {
            min: *sorted.first()?,
            median,
            max: *sorted.last()?,
        })
    }
}

/// `ours` / `theirs`, round by round: what disturbs a round disturbs both. Rounds in which theirs is
/// nothing have no ratio.
pub(super) fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    let rounds = ours.iter().zip(theirs);
    rounds
        .filter(|(_, theirs)| **theirs > 0.0)
        .map(|(ours, theirs)| ours / theirs)
        .collect()
}

/// The mean, and how far the true mean may be from it on either side with a probability of 95 %
/// (Student's t). `None` of fewer than two numbers.
pub(super) fn confidence(numbers: &[f64]) -> Option<(f64, f64)> {
    let count = numbers.len();
    let freedom = count.checked_sub(1).filter(|freedom| *freedom > 0)?;
    let mean = numbers.iter().sum::<f64>() / count as f64;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    let deviation = (squares / freedom as f64).sqrt();
    Some((mean, student(freedom) * deviation / (count as f64).sqrt()))
}

/// The 97.5th percentile of Student's t.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 15] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131,
    ];
    // From 16 on it is 2.12 and falls to 1.96: a little too wide is honest.
    TABLE.get(freedom - 1).copied().unwrap_or(2.12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 10.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                min: 1.0,
                median: 3.5,
                max: 10.0
            }
        );
        assert_eq!(Spread::of(&[2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        assert_eq!(ratios(&[1.0, 6.0, 1.0], &[2.0, 3.0, 0.0]), [0.5, 2.0]);
    }

    #[test]
    fn confidence_is_that_of_a_textbook() {
        // Mean 3, deviation 1.5811, n = 5: 2.776 * 1.5811 / 2.2361.
        let (mean, margin) = confidence(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(mean, 3.0);
        assert!((margin - 1.963).abs() < 0.001, "{margin}");
        assert_eq!(confidence(&[1.0]), None);
    }
}
