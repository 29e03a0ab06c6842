//! What a plain scalar means: the core schema of YAML 1.2, without its traps.

use serde_json::{Number, Value};

/// The value of a plain scalar.
///
/// # Errors
/// Why it is refused: spellings that YAML 1.1 and 1.2 read differently, and numbers that JSON does not have.
pub(super) fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => {
            return Err(format!("{text} is not a number that can be used here"));
        }
        _ => {}
    }
    if let Some(based) = based_integer(text) {
        return Ok(Value::from(based));
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    if is_octal_or_decimal(text, unsigned) {
        let digits = unsigned.trim_start_matches('0');
        return Err(format!(
            "{text} is read as octal by some programs and as decimal by others; write 0o{digits} or {digits}, or put it in quotes"
        ));
    }
    Ok(number(text).map_or_else(|| Value::from(text), Value::Number))
}

/// `0o644` and `0x1F`.
fn based_integer(text: &str) -> Option<u64> {
    let octal = text.strip_prefix("0o").map(|digits| (digits, 8));
    let (digits, radix) = octal.or_else(|| text.strip_prefix("0x").map(|digits| (digits, 16)))?;
    let clean = !digits.starts_with(['+', '-']);
    clean.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

fn is_octal_or_decimal(text: &str, unsigned: &str) -> bool {
    let signs = text.len() - unsigned.len();
    signs <= 1 && unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.bytes().all(|byte| byte.is_ascii_digit())
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_good = is_digits(whole) && is_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_good = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && is_digits(digits)
    });
    if !mantissa_good || !exponent_good {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if exponent.is_none() && !mantissa.contains('.') {
        let unsigned = plain.parse::<u64>().map(Number::from);
        if let Ok(number) = unsigned.or_else(|_| plain.parse::<i64>().map(Number::from)) {
            return Some(number);
        }
    }
    Number::from_f64(plain.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_follow_yaml_1_2() {
        let cases = [
            ("12", json!(12)),
            ("-3", json!(-3)),
            ("+5", json!(5)),
            ("0.01", json!(0.01)),
            ("1e3", json!(1000.0)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("0", json!(0)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("yes", json!("yes")),
            ("on", json!("on")),
            ("1.2.3", json!("1.2.3")),
            ("500m", json!("500m")),
            ("12:30", json!("12:30")),
            ("1_000", json!("1_000")),
            ("e5", json!("e5")),
        ];
        for (text, value) in cases {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_programs_read_differently_is_refused() {
        insta::assert_snapshot!(
            resolve("0644").expect_err("octal"),
            @"0644 is read as octal by some programs and as decimal by others; write 0o644 or 644, or put it in quotes"
        );
        assert!(resolve(".inf").is_err());
    }
}
