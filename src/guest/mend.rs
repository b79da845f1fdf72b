//! What componentize-qjs makes keeps the handle of a batch until after the call, in its post-return function; a host must
//! refuse that ("borrow handles still remain at the end of the call"). Here the handle is dropped as the last thing of
//! `on-batch`, and what the interpreter drops afterwards is nothing.
//!
//! It is the code of the generator wit-dylib that is mended: the module that imports `wit_dylib_export_finish`. In it, the
//! function that is exported as `on-batch` has the handle as its only parameter, never writes it, and has no `return`
//! (else the mending is refused), and the interpreter finds the drop of a batch in a table. A batch is never owned.

use wasmparser::{
    BinaryReaderError, ElementItems, ElementKind, ExternalKind, FunctionBody, Operator, Parser, Payload, TypeRef,
};

/// Why a component was not mended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MendError {
    /// It is none, or broken.
    #[error("{0}")]
    Broken(String),
    /// The generator makes another code than it did: it is to be looked at again.
    #[error("componentize-qjs makes another code than the one that is known here: {0}")]
    Unknown(&'static str),
}

impl From<BinaryReaderError> for MendError {
    fn from(error: BinaryReaderError) -> Self {
        Self::Broken(error.to_string())
    }
}

const MODULE: u8 = 1;
const COMPONENT: u8 = 4;
const FUNCTIONS: u8 = 3;
const ELEMENTS: u8 = 9;
const CODE: u8 = 10;

/// The component with `on-batch` mended, wherever in it that stands; `None` if there is nothing to mend.
///
/// # Errors
/// [`MendError`].
pub fn mend(component: &[u8]) -> Result<Option<Vec<u8>>, MendError> {
    let mut mended = false;
    let octets = within(component, &mut mended)?;
    Ok(mended.then_some(octets))
}

fn within(component: &[u8], mended: &mut bool) -> Result<Vec<u8>, MendError> {
    let mut out = component.get(..8).ok_or(MendError::Unknown("it is cut short"))?.to_vec();
    for (id, body) in sections(component)? {
        let new = match id {
            MODULE => module(body)?.inspect(|_| *mended = true),
            COMPONENT => Some(within(body, mended)?),
            _ => None,
        };
        section(&mut out, id, new.as_deref().unwrap_or(body));
    }
    Ok(out)
}

/// What matters of a module.
#[derive(Default)]
struct Found {
    imported_functions: u32,
    functions: u32,
    /// The function that drops a batch, and its type.
    drop: Option<(u32, u32)>,
    finish: bool,
    on_batch: Option<u32>,
}

fn look(module: &[u8]) -> Result<Found, MendError> {
    let mut found = Found::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    let TypeRef::Func(ty) = import.ty else { continue };
                    if import.module.starts_with("hep:filter/packets@") && import.name == "[resource-drop]batch" {
                        found.drop = Some((found.imported_functions, ty));
                    }
                    found.finish |= import.name == "wit_dylib_export_finish";
                    found.imported_functions += 1;
                }
            }
            Payload::FunctionSection(functions) => found.functions = functions.count(),
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    let ours = export.name.starts_with("hep:filter/callbacks@") && export.name.ends_with("#on-batch");
                    if ours && export.kind == ExternalKind::Func {
                        found.on_batch = Some(export.index);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn module(module: &[u8]) -> Result<Option<Vec<u8>>, MendError> {
    let found = look(module)?;
    let (Some((drop, drop_type)), true, Some(on_batch)) = (found.drop, found.finish, found.on_batch) else {
        return Ok(None);
    };
    let nothing = found.imported_functions + found.functions;
    let mut redirected = false;
    let mut dropped = false;
    let mut out = module.get(..8).ok_or(MendError::Unknown("it is cut short"))?.to_vec();
    for (id, body) in sections(module)? {
        let new = match id {
            FUNCTIONS => {
                let (count, rest) = number(body).ok_or(MendError::Unknown("it is cut short"))?;
                let mut new = leb(count + 1);
                new.extend_from_slice(rest);
                new.extend(leb(drop_type));
                Some(new)
            }
            ELEMENTS => Some(elements(body, drop, nothing, &mut redirected)?),
            CODE => Some(code(body, found.imported_functions, on_batch, drop, &mut dropped)?),
            _ => None,
        };
        section(&mut out, id, new.as_deref().unwrap_or(body));
    }
    match (redirected, dropped) {
        (true, true) => Ok(Some(out)),
        (false, _) => Err(MendError::Unknown("the drop of a batch stands in no table")),
        (_, false) => Err(MendError::Unknown("there is no code of on-batch")),
    }
}

/// The table's parts, with the function that does nothing instead of the drop.
fn elements(body: &[u8], drop: u32, nothing: u32, redirected: &mut bool) -> Result<Vec<u8>, MendError> {
    let reader = wasmparser::ElementSectionReader::new(wasmparser::BinaryReader::new(body, 0))?;
    let mut new = leb(reader.count());
    for element in reader {
        let element = element?;
        let octets = body.get(element.range.clone()).ok_or(MendError::Unknown("it is cut short"))?;
        let ElementItems::Functions(functions) = element.items else {
            new.extend_from_slice(octets);
            continue;
        };
        let start = functions.range().start - element.range.start;
        new.extend_from_slice(octets.get(..start).ok_or(MendError::Unknown("it is cut short"))?);
        new.extend(leb(functions.count()));
        for function in functions {
            let function = function?;
            let active = matches!(element.kind, ElementKind::Active { .. });
            *redirected |= active && function == drop;
            new.extend(leb(if function == drop { nothing } else { function }));
        }
    }
    Ok(new)
}

/// The functions, with the drop at the end of `on-batch`, and one more that does nothing.
fn code(body: &[u8], imported: u32, on_batch: u32, drop: u32, dropped: &mut bool) -> Result<Vec<u8>, MendError> {
    let reader = wasmparser::CodeSectionReader::new(wasmparser::BinaryReader::new(body, 0))?;
    let mut new = leb(reader.count() + 1);
    for (index, function) in (imported..).zip(reader) {
        let function = function?;
        let octets = function.as_bytes();
        if index != on_batch {
            new.extend(length(octets));
            new.extend_from_slice(octets);
            continue;
        }
        untouched(&function)?;
        let (_end, before) = octets.split_last().ok_or(MendError::Unknown("it is cut short"))?;
        let mut mended = before.to_vec();
        // local.get 0, call DROP, end
        mended.extend([0x20, 0x00, 0x10]);
        mended.extend(leb(drop));
        mended.push(0x0b);
        new.extend(length(&mended));
        new.extend(mended);
        *dropped = true;
    }
    // No locals, end.
    new.extend([2, 0x00, 0x0b]);
    Ok(new)
}

/// Does the function reach its end in any case, with its parameter as it came?
fn untouched(function: &FunctionBody<'_>) -> Result<(), MendError> {
    let mut depth = 0_u32;
    for operator in function.get_operators_reader()? {
        match operator? {
            Operator::Return | Operator::LocalSet { local_index: 0 } | Operator::LocalTee { local_index: 0 } => {
                return Err(MendError::Unknown("on-batch returns early, or writes its parameter"));
            }
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth += 1,
            Operator::End => depth = depth.saturating_sub(1),
            // A branch out of the whole function is a return.
            Operator::Br { relative_depth } | Operator::BrIf { relative_depth } if relative_depth >= depth => {
                return Err(MendError::Unknown("on-batch returns early"));
            }
            Operator::BrTable { .. } => return Err(MendError::Unknown("on-batch has a table of branches")),
            _ => {}
        }
    }
    Ok(())
}

/// The sections of a module or a component, with their numbers.
fn sections(octets: &[u8]) -> Result<Vec<(u8, &[u8])>, MendError> {
    let short = MendError::Unknown("it is cut short");
    let Some(mut rest) = octets.get(8..) else { return Err(short) };
    let mut all = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        let Some((length, after)) = number(after) else { return Err(short) };
        let Some((body, after)) = usize::try_from(length).ok().and_then(|length| after.split_at_checked(length)) else {
            return Err(short);
        };
        all.push((id, body));
        rest = after;
    }
    Ok(all)
}

fn section(out: &mut Vec<u8>, id: u8, body: &[u8]) {
    out.push(id);
    out.extend(length(body));
    out.extend_from_slice(body);
}

fn number(octets: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u32;
    for (i, octet) in (0..5).zip(octets) {
        value |= u32::from(octet & 0x7f).checked_shl(7 * i)?;
        if octet & 0x80 == 0 {
            return Some((value, octets.get(usize::try_from(i).ok()? + 1..)?));
        }
    }
    None
}

/// How many octets these are. A module has fewer than 2^32.
fn length(octets: &[u8]) -> Vec<u8> {
    leb(u32::try_from(octets.len()).unwrap_or(u32::MAX))
}

fn leb(mut value: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(5);
    loop {
        let [lowest, ..] = value.to_le_bytes();
        let octet = lowest & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(octet);
            return out;
        }
        out.push(octet | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Guest, component};
    use super::*;

    #[test]
    fn what_another_tool_chain_made_is_left_alone() {
        assert_eq!(mend(&component(Guest::default()).unwrap()), Ok(None));
    }

    #[test]
    fn what_is_cut_short_or_noise_is_an_error_or_nothing_to_mend() {
        let whole = component(Guest::default()).unwrap();
        for octets in 0..whole.len() {
            assert!(!matches!(mend(&whole[..octets]), Ok(Some(_))), "{octets}");
        }
        assert!(mend(b"noise").is_err());
        assert!(mend(&[0, 97, 115, 109, 13, 0, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
