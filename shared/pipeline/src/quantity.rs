//! Kubernetes quantities: `500m`, `1Gi`, `1.5`, `2e3`.

use std::cmp::Ordering;

use crate::substitute::references;

/// An exact amount in units of 10⁻⁹; quantities finer than that are rounded up, as Kubernetes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(i128);

impl Amount {
    pub(crate) fn is_negative(self) -> bool {
        self.0.cmp(&0) == Ordering::Less
    }

    /// Whether it is a whole number, as extended resources such as GPUs must be.
    pub(crate) fn is_whole(self) -> bool {
        self.0 % NANOS == 0
    }
}

const NANOS: i128 = 1_000_000_000;

/// Reads a quantity.
pub(crate) fn parse(text: &str) -> Option<Amount> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let well_formed = !fraction.contains('.') && whole.len() + fraction.len() > 0;
    let digits = (well_formed && number.len() <= 30).then(|| format!("{whole}{fraction}"))?;
    let mantissa: i128 = digits.parse().ok()?;
    let (numerator, denominator) = scale(suffix)?;
    let fraction = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = mantissa.checked_mul(numerator)?.checked_mul(NANOS)?;
    let divisor = fraction.checked_mul(denominator)?;
    let rounded_up = scaled.checked_add(divisor - 1)? / divisor;
    Some(Amount(sign * rounded_up))
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    match suffix {
        "n" => Some((1, NANOS)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "" => Some((1, 1)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs().min(18))?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

/// Whether `text` is a quantity, or may be one once `$(NAME)` is substituted in it.
pub(crate) fn may_become_valid(text: &str) -> bool {
    parse(text).is_some() || references(text).next().is_some()
}

/// Why `text` is no quantity.
pub(crate) fn explain(text: &str) -> String {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let hint = match unit.trim() {
        "GB" | "gb" | "g" | "Gb" | "GiB" => "; write Gi or G",
        "MB" | "mb" | "Mb" | "MiB" => "; write Mi or M",
        "KB" | "kb" | "K" | "KiB" => "; write Ki or k",
        "TB" | "tb" | "TiB" => "; write Ti or T",
        _ => "; write for example 500m, 2 or 4Gi",
    };
    format!("`{text}` is no quantity{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_exactly() {
        let amount = |text: &str| parse(text).expect(text);
        assert_eq!(amount("1"), amount("1000m"));
        assert_eq!(amount("1Gi"), amount("1024Mi"));
        assert_eq!(amount("2e3"), amount("2k"));
        assert_eq!(amount("0.5"), amount("500m"));
        assert_eq!(amount("1.5Gi"), amount("1536Mi"));
        assert_eq!(amount(".5"), amount("500e-3"));
        assert!(amount("400Mi") > amount("200Mi"));
        assert!(amount("1G") < amount("1Gi"));
        assert!(amount("-1").is_negative());
        assert!(amount("2").is_whole() && !amount("500m").is_whole());
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "x", "1GB", "1.2.3", "Gi", "1 Gi", "--1", "1e", "."] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(explain("4GB"), "`4GB` is no quantity; write Gi or G");
        assert!(may_become_valid("$(MEMORY)"));
    }
}
