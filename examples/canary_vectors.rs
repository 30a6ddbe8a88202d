//! Replays recorded streams against the rules that judge a rollout, and says where they differ.
//!
//! ```sh
//! cargo run --release --example canary_vectors -- FILE
//! ```
//!
//! The file holds vectors of several kinds, each with what must come out: indices exactly, evidence within 1e-9 of
//! itself. Exits with 1 if anything differs, is unknown, or if there is nothing to replay.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::Value;
use switchback::analysis::{
    Arm, EProc, ErrorJudge, ErrorLimits, Grid, HoldReason, LatencyJudge, PromoteGate, Sketch, Verdict,
};
use switchback::routing::{ClientKey, is_first};

/// Hundredths of a percent in the whole.
const WHOLE: u64 = 10_000;

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: canary_vectors FILE");
        return ExitCode::from(2);
    };
    let vectors = match read(&file) {
        Ok(vectors) => vectors,
        Err(why) => {
            eprintln!("{file}: {why}");
            return ExitCode::FAILURE;
        }
    };
    let mut kinds: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for vector in &vectors {
        let kind = vector["kind"].as_str().unwrap_or("without a kind");
        let (passed, failed) = kinds.entry(kind.into()).or_default();
        match replay(kind, vector) {
            Ok(()) => *passed += 1,
            Err(why) => {
                *failed += 1;
                println!("{} ({kind}): {why}", vector["id"].as_str().unwrap_or("?"));
            }
        }
    }
    let mut all = 0;
    for (kind, (passed, failed)) in &kinds {
        println!("{kind:<14} {passed} passed, {failed} failed");
        all += failed;
    }
    if all == 0 && !vectors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(file: &str) -> Result<Vec<Value>, String> {
    parse(&std::fs::read_to_string(file).map_err(|error| error.to_string())?)
}

fn parse(text: &str) -> Result<Vec<Value>, String> {
    let whole: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let vectors = whole["vectors"].as_array().cloned().ok_or("it has no list `vectors`")?;
    if vectors.is_empty() { Err("it has no vectors".into()) } else { Ok(vectors) }
}

fn replay(kind: &str, vector: &Value) -> Result<(), String> {
    match kind {
        "eproc" => eproc(vector),
        "eproc_batch" => batches(vector),
        "error_judge" => errors(vector),
        "latency_judge" => latency(vector),
        "promote" => promote(vector),
        "split" => split(vector),
        "sticky" => sticky(vector),
        "sketch" => sketch(vector),
        other => Err(format!("the kind `{other}` is not known")),
    }
}

fn near(what: &str, got: f64, wanted: &Value) -> Result<(), String> {
    let Some(wanted) = wanted.as_f64() else { return Err(format!("{what}: nothing to compare with")) };
    if (got - wanted).abs() <= 1e-9 * wanted.abs() { Ok(()) } else { Err(format!("{what} is {got}, not {wanted}")) }
}

fn same(what: &str, got: &Value, wanted: &Value) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what} is {got}, not {wanted}")) }
}

fn number(value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("{value} is not a number"))
}

fn count(value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("{value} is not a count"))
}

fn list(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{value} is not a list"))
}

fn eproc(vector: &Value) -> Result<(), String> {
    let threshold = number(&vector["threshold"])?;
    let mut test = EProc::new(Grid::Against);
    let (mut crossing, mut greatest) = (Value::Null, test.value());
    for step in list(&vector["obs"])? {
        for _ in 0..count(&step[2])? {
            test.update(count(&step[0])? == 1, number(&step[1])?);
            greatest = greatest.max(test.value());
            if crossing.is_null() && test.value() >= threshold {
                crossing = test.observations().into();
            }
        }
    }
    same("first_crossing", &crossing, &vector["expect"]["first_crossing"])?;
    near("E_end", test.value(), &vector["expect"]["E_end"])?;
    near("E_max", greatest, &vector["expect"]["E_max"])
}

fn batches(vector: &Value) -> Result<(), String> {
    let mut test = EProc::new(Grid::Against);
    for (batch, wanted) in list(&vector["batches"])?.iter().zip(list(&vector["expect"]["E"])?) {
        test.batch(count(&batch[0])?, count(&batch[1])?, number(&batch[2])?);
        near("E", test.value(), wanted)?;
    }
    Ok(())
}

/// The requests of one segment: whose, and the event of each.
fn stream(segment: &Value) -> Result<Vec<(Arm, u8)>, String> {
    let mut requests = Vec::new();
    if let Some(events) = segment["events"].as_array() {
        for event in events {
            let arm = if event[0] == "c" { Arm::Canary } else { Arm::Stable };
            let happened = count(&event[1])? as u8;
            requests.extend(std::iter::repeat_n((arm, happened), count(&event[2])? as usize));
        }
        return Ok(requests);
    }
    let (bp, salt) = (count(&segment["bp"])?, count(&segment["salt"])?);
    for at in 0..count(&segment["n"])? {
        let arm = if is_first(at, bp, WHOLE, salt) { Arm::Canary } else { Arm::Stable };
        requests.push((arm, 0));
    }
    if let Some(failed) = segment["failed"].as_array() {
        for at in failed {
            requests[count(at)? as usize].1 = 1;
        }
    }
    if let Some(flags) = segment["flags"].as_str() {
        for (request, digit) in requests.iter_mut().zip(flags.bytes()) {
            request.1 = digit - b'0';
        }
    }
    Ok(requests)
}

fn errors(vector: &Value) -> Result<(), String> {
    let mut judge = ErrorJudge::new(ErrorLimits::default());
    let (mut index, mut first_hold, mut reason) = (0_u64, Value::Null, Value::Null);
    let mut ended = Value::Null;
    'all: for segment in list(&vector["segments"])? {
        let pi = number(&segment["weight"])?;
        judge.set_share(pi);
        for (arm, failed) in stream(segment)? {
            index += 1;
            match failed {
                0 => judge.succeeded(arm, 1),
                _ => judge.failed(arm, pi),
            }
            match judge.verdict() {
                Verdict::RollBack => {
                    // Whoever was not held before is held by this.
                    if first_hold.is_null() {
                        first_hold = index.into();
                    }
                    ended = index.into();
                    break 'all;
                }
                Verdict::Hold(why) if first_hold.is_null() => {
                    first_hold = index.into();
                    reason = Value::from(match why {
                        HoldReason::Pending => "pending",
                        HoldReason::Absolute => "absolute",
                        HoldReason::Relative => "relative",
                    });
                }
                Verdict::Hold(_) | Verdict::Continue => {}
            }
        }
    }
    let expect = &vector["expect"];
    let decision = if ended.is_null() { "none" } else { "rollback" };
    same("decision", &decision.into(), &expect["decision"])?;
    same("index", &ended, &expect["index"])?;
    same("first_hold_index", &first_hold, &expect["first_hold_index"])?;
    same("hold_reason", &reason, &expect["hold_reason"])?;
    let meters = judge.meters();
    near("E_abs", meters.e_abs, &expect["E_abs"])?;
    near("E_rel", meters.e_rel, &expect["E_rel"])?;
    near("bake_p0", meters.bake_limit, &expect["bake_p0"])?;
    match meters.e_bake {
        Some(bake) => near("E_bake", bake, &expect["E_bake"]),
        None => same("E_bake", &Value::Null, &expect["E_bake"]),
    }
}

fn latency(vector: &Value) -> Result<(), String> {
    let pi = number(&vector["weight"])?;
    let mut judge = LatencyJudge::new();
    let mut first_hold = Value::Null;
    for (at, (arm, flags)) in stream(vector)?.into_iter().enumerate() {
        judge.observe(arm == Arm::Canary, flags, pi);
        if first_hold.is_null() && judge.is_holding() {
            first_hold = (at + 1).into();
        }
    }
    let expect = &vector["expect"];
    same("first_hold_index", &first_hold, &expect["first_hold_index"])?;
    near("E_end", judge.value(), &expect["E_end"])?;
    for (value, wanted) in judge.values().into_iter().zip(list(&expect["E_levels"])?) {
        near("E_levels", value, wanted)?;
    }
    Ok(())
}

fn promote(vector: &Value) -> Result<(), String> {
    let pi = number(&vector["weight"])?;
    let mut gate = PromoteGate::new(ErrorLimits::default().slo, 1.5);
    let mut first = Value::Null;
    for (at, (arm, failed)) in stream(vector)?.into_iter().enumerate() {
        match failed {
            0 => gate.succeeded(arm, 1),
            _ => gate.failed(arm, pi),
        }
        if first.is_null() && gate.proven() {
            first = (at + 1).into();
        }
    }
    let expect = &vector["expect"];
    same("first_index", &first, &expect["first_index"])?;
    let (absolute, relative) = gate.values();
    near("E_abs_ok", absolute, &expect["E_abs_ok"])?;
    near("E_rel_ok", relative, &expect["E_rel_ok"])?;
    near("E_end", gate.value(), &expect["E_end"])
}

fn split(vector: &Value) -> Result<(), String> {
    let (bp, salt) = (count(&vector["bp"])?, count(&vector["salt"])?);
    let picks: Vec<u64> = (0..count(&vector["n"])?).filter(|at| is_first(*at, bp, WHOLE, salt)).collect();
    same("picks", &picks.into(), &vector["expect"]["picks"])
}

fn sticky(vector: &Value) -> Result<(), String> {
    let salt = count(&vector["salt"])?;
    let bucket = |key: &Value| ClientKey::from_bytes(key.as_str().unwrap_or_default().as_bytes()).bucket(salt).0;
    let buckets: Vec<u16> = list(&vector["keys"])?.iter().map(bucket).collect();
    same("buckets", &buckets.into(), &vector["expect"]["buckets"])
}

fn sketch(vector: &Value) -> Result<(), String> {
    let mut sketch = Sketch::default();
    for value in list(&vector["values"])? {
        sketch.add(number(value)?);
    }
    for (quantile, wanted) in [0.5, 0.95, 0.99].into_iter().zip(list(&vector["expect"]["q"])?) {
        near("a quantile", sketch.quantile(quantile).unwrap_or(f64::NAN), wanted)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_streams_come_out_as_they_did() {
        let vectors = parse(include_str!("canary_vectors.json")).expect("it is well formed");
        for vector in &vectors {
            let kind = vector["kind"].as_str().expect("each has a kind");
            assert_eq!(replay(kind, vector), Ok(()), "{}", vector["id"]);
        }
    }

    #[test]
    fn a_difference_is_seen() {
        let vectors = parse(include_str!("canary_vectors.json")).expect("it is well formed");
        let mut changed = vectors.iter().find(|vector| vector["kind"] == "eproc").expect("there is one").clone();
        changed["expect"]["E_end"] = 1.5.into();
        assert!(replay("eproc", &changed).is_err());
        assert!(replay("horoscope", &changed).is_err());
        assert!(parse("{\"vectors\":[]}").is_err());
    }
}
