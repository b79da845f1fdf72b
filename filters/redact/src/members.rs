//! Members of JSON by what their names vouch for. A name in no list vouches for nothing, and may be a user itself.
//!
//! Names are compared by their letters and digits, in lower case: `Call-ID`, `call_id` and `callId` are one. They are
//! what rtpengine, captagent, heplify, hepfix, Homer and OpenSIPS send.

use std::collections::HashMap;

/// Letters and digits of the longest name that can be known.
const NAME_OCTETS_MAX: usize = 40;

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Says nothing about people, but for URIs in it.
    Word,
    /// The same if it is a number, or a string of figures.
    Figure,
    /// Somebody.
    User,
    /// What a call is found by.
    CallId,
    /// Nobody vouches for it.
    Hidden,
}

/// What every name that is known vouches for.
pub struct Members(HashMap<Box<[u8]>, Class>);

impl Members {
    /// Those of the lists, and these that say nothing about people, as [`plain`] makes them.
    pub fn with(kept: Vec<String>) -> Self {
        let lists: [(&[&str], Class); 5] = [
            (&FIGURES, Class::Figure),
            (&WORDS, Class::Word),
            (&USERS, Class::User),
            (&CALL_IDS, Class::CallId),
            (&HIDDEN, Class::Hidden),
        ];
        let known = lists.iter().flat_map(|(list, class)| list.iter().map(|name| ((*name).to_owned(), *class)));
        // The operator has the last word.
        let all = known.chain(kept.into_iter().map(|name| (name, Class::Word)));
        Self(all.map(|(name, class)| (name.into_bytes().into_boxed_slice(), class)).collect())
    }
}

/// Whose names they are.
pub enum Names<'a> {
    /// Those of a payload.
    Payload(&'a Members),
    /// Those that OpenSIPS' script gives to correlation ids: they stay, and all values are ids.
    Correlation,
}

impl Names<'_> {
    /// What a member of that name is. `None`: the name is not known.
    pub fn class_of(&self, name: &[u8]) -> Option<Class> {
        let Self::Payload(members) = self else { return Some(Class::CallId) };
        members.0.get(plain_in(name, &mut [0; NAME_OCTETS_MAX])?).copied()
    }

    /// What a value without a known name is.
    pub const fn unnamed(&self) -> Class {
        match self {
            Self::Payload(_) => Class::Hidden,
            Self::Correlation => Class::CallId,
        }
    }
}

/// The letters and digits of a name in lower case; `None` if it is no name.
pub fn plain(name: &str) -> Option<String> {
    let mut plain = [0; NAME_OCTETS_MAX];
    let plain = plain_in(name.as_bytes(), &mut plain)?;
    std::str::from_utf8(plain).ok().map(str::to_owned)
}

fn plain_in<'a>(name: &[u8], plain: &'a mut [u8; NAME_OCTETS_MAX]) -> Option<&'a [u8]> {
    let mut length = 0;
    for octet in name.iter().filter(|octet| !matches!(octet, b'_' | b'-' | b'.')) {
        if !octet.is_ascii_alphanumeric() {
            return None;
        }
        *plain.get_mut(length)? = octet.to_ascii_lowercase();
        length += 1;
    }
    plain.get(..length).filter(|plain| !plain.is_empty())
}

/// Reports of quality, counts, ports, times.
#[rustfmt::skip]
const FIGURES: [&str; 93] = [
    "burstdensity", "burstduration", "burstrate", "bytes", "captureid", "clock", "codecpt", "createts", "delta",
    "destinationport", "discardrate", "dlsr", "dstport", "duration", "endsysdelay", "endsystemdelay", "expectedpk",
    "extrfact", "extrfactor", "fractiondiscard", "fractionlost", "gapdensity", "gapduration", "gaprate", "gmin",
    "highestseqno", "iajitter", "jbabsmax", "jbabsolutemaximum", "jbadapt", "jbmax", "jbmaximum", "jbnom",
    "jbnominal", "jbrate", "jitter", "length", "lossrate", "lsr", "maxdelta", "maxjitter", "maxmos", "maxmoscq",
    "maxrfactor", "maxskew", "meandelta", "meanjitter", "meanmos", "meanrfactor", "meanskew", "minjitter", "minmos",
    "minrfactor", "mos", "moscq", "moslq", "noiselev", "noiselevel", "ntptimestampsec", "ntptimestampusec", "octets",
    "outorder", "packetloss", "packets", "packetslost", "party", "payloadtype", "plc", "protocolfamily",
    "reportcount", "reportts", "rerl", "rfact", "rfactor", "roundtripdelay", "rtptimestamp", "rtt", "sdeschunkssrc",
    "sdesreportcount", "sdesssrc", "seq", "signallev", "signallevel", "skew", "sourceport", "sourcessrc", "srcport",
    "ssrc", "ssrcchg", "timeseconds", "timeuseconds", "tlbyte", "totalpk",
];
/// Kinds, addresses of machines, and what is technical in SIP.
#[rustfmt::skip]
const WORDS: [&str; 36] = [
    "branch", "cause", "code", "codec", "codecname", "codecs", "contenttype", "createdate", "cseq", "cseqmethod",
    "date", "destinationip", "dir", "direction", "dstip", "event", "family", "fromdomain", "fromtag", "method",
    "proto", "protocol", "ruridomain", "sourceip", "srcip", "status", "statuscode", "time", "timestamp", "todomain",
    "totag", "transport", "type", "useragent", "version", "viabranch",
];
/// Users, and headers that name some.
#[rustfmt::skip]
const USERS: [&str; 56] = [
    "account", "aor", "authuser", "called", "callednumber", "calledparty", "calledstationid", "callee", "calleeid",
    "calleename", "calleenumber", "calleeuri", "caller", "callerid", "calleridname", "calleridnumber", "callername",
    "callernumber", "calleruri", "calling", "callingnumber", "callingparty", "callingstationid", "cname", "contact",
    "contactuser", "destinationnumber", "displayname", "diversion", "dst", "email", "extension", "from", "fromuser",
    "imei", "imsi", "msisdn", "number", "pai", "paiuser", "phone", "phonenumber", "piduser", "remotepartyid",
    "requesturi", "ruri", "ruriuser", "sipcalledparty", "sipcallingparty", "src", "subscriber", "to", "touser", "uri",
    "user", "username",
];
/// What calls are found by.
#[rustfmt::skip]
const CALL_IDS: [&str; 15] = [
    "acctsessionid", "callid", "calluuid", "cid", "correlationid", "corrid", "inreplyto", "internalcorrelationid",
    "parentcallid", "rtpsipcallid", "sessionid", "sid", "sipcallid", "xcallid", "xcid",
];
/// Names that say nothing, of values that may.
#[rustfmt::skip]
const HIDDEN: [&str; 35] = [
    "body", "capturepass", "data", "dataheader", "dstmac", "extendedreportinformation", "headers", "host", "hostname",
    "id", "identifier", "level", "message", "msg", "name", "node", "params", "password", "payload", "protocolheader",
    "raw", "reason", "reportblocks", "reportblocksxr", "reportname", "result", "rxconf", "rxconfig",
    "sdesinformation", "sdp", "senderinformation", "srcmac", "subject", "tags", "text",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_one_list_in_order_and_as_it_is_compared() {
        let lists: [&[&str]; 5] = [&FIGURES, &WORDS, &USERS, &CALL_IDS, &HIDDEN];
        for list in lists {
            assert!(list.is_sorted(), "{list:?}");
        }
        let mut all = lists.concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for name in all {
            assert_eq!(plain(name).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_name_is_the_same_however_it_is_written() {
        let members = Members::with(Vec::new());
        let names = Names::Payload(&members);
        for name in ["call_id", "Call-ID", "callId", "CALLID", "call.id"] {
            assert_eq!(names.class_of(name.as_bytes()), Some(Class::CallId), "{name}");
        }
        for name in ["", "alice", "call id", "callid@h", "4930123", &"jitter".repeat(9), "jitt\u{e9}r"] {
            assert_eq!(names.class_of(name.as_bytes()), None, "{name}");
        }
        let kept = Members::with(vec![plain("Leg-A").unwrap_or_default(), "text".to_owned()]);
        for name in [&b"leg_a"[..], b"text", b"method"] {
            assert_eq!(Names::Payload(&kept).class_of(name), Some(Class::Word));
        }
    }
}
