//! One packet of the call at hand.

use std::borrow::Cow;
use std::cell::Cell;

use hepgate_filter::{
    Batch, COMPRESSED, Chunk, ChunkForm, ChunkId, ChunkValue, Collector, EditError, Endpoint, NO_PAYLOAD, SIP, Scalars,
    SendError, Sender, Span, clock,
};

use crate::sip::{self, Sip};

/// What the packets of a call share.
#[doc(hidden)]
#[derive(Debug)]
pub struct Call<'a> {
    batch: &'a Batch,
    /// Asked for once.
    now: Cell<Option<u64>>,
}

impl<'a> Call<'a> {
    #[inline]
    pub(crate) const fn new(batch: &'a Batch) -> Self {
        Self { batch, now: Cell::new(None) }
    }
}

/// A packet. Scalars and payload are as they were when the call began, and cost nothing; what says "a host call" sees
/// the packet as this call has edited it.
#[derive(Debug)]
pub struct PacketView<'a> {
    call: &'a Call<'a>,
    index: u32,
    scalars: &'a Scalars,
    payload: &'a [u8],
}

impl<'a> PacketView<'a> {
    #[inline]
    pub(crate) const fn new(call: &'a Call<'a>, index: u32, scalars: &'a Scalars, payload: &'a [u8]) -> Self {
        Self { call, index, scalars, payload }
    }

    /// The batch, in which this is the packet at [`Self::index`].
    #[inline]
    #[must_use]
    pub const fn batch(&self) -> &'a Batch {
        self.call.batch
    }

    /// The packet's place in the batch.
    #[inline]
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// What the packet says in numbers.
    #[inline]
    #[must_use]
    pub const fn scalars(&self) -> &'a Scalars {
        self.scalars
    }

    /// As much of the payload as the filter wants of each: [`crate::PacketFilter::PREFIX_OCTETS`].
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether [`Self::payload`] is all of it.
    #[inline]
    #[must_use]
    pub fn is_whole(&self) -> bool {
        u32::try_from(self.payload.len()) == Ok(self.scalars.payload_length)
    }

    /// Whether the packet says that it carries SIP, and has a payload that can be read.
    #[inline]
    #[must_use]
    pub const fn is_sip(&self) -> bool {
        self.scalars.payload_type == SIP && self.scalars.marks & (COMPRESSED | NO_PAYLOAD) == 0
    }

    /// The SIP in [`Self::payload`]: only so much of it as the filter wants of each payload.
    #[inline]
    #[must_use]
    pub fn sip(&self) -> Option<Sip<'a>> {
        if self.is_sip() { Sip::parse(self.payload) } else { None }
    }

    /// The value of a SIP header, from [`Self::payload`]; a host call only if that ends too early to tell.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        if !self.is_sip() {
            return None;
        }
        let (value, is_certain) = match Sip::parse(self.payload) {
            Some(sip) => sip.search(name),
            None => (None, false),
        };
        if is_certain || self.is_whole() {
            return value.map(Cow::Borrowed);
        }
        self.sip_header(name).map(Cow::Owned)
    }

    /// The method of a SIP request, or, of a response, the method in its CSeq. As [`Self::header`], it asks the host
    /// only if [`Self::payload`] ends too early to tell.
    #[must_use]
    pub fn method(&self) -> Option<Cow<'a, [u8]>> {
        if !self.is_sip() {
            return None;
        }
        let sip = Sip::parse(self.payload);
        if self.is_whole() {
            return sip?.method().map(Cow::Borrowed);
        }
        match sip.filter(Sip::has_whole_start_line) {
            None => self.sip_method().map(|method| Cow::Owned(method.into_bytes())),
            Some(sip) if !sip.is_response() => sip.method().map(Cow::Borrowed),
            Some(_) => match self.header("CSeq")? {
                Cow::Borrowed(value) => sip::cseq_method(value).map(Cow::Borrowed),
                Cow::Owned(value) => sip::cseq_method(&value).map(|method| Cow::Owned(method.to_vec())),
            },
        }
    }

    /// When the call began, in microseconds since the epoch: a host call, the first time in a call.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.call.now.get().unwrap_or_else(|| {
            let now = clock::wall();
            self.call.now.set(Some(now));
            now
        })
    }

    /// When the packet was captured, or, if it does not say, when the call began. Microseconds since the epoch.
    #[inline]
    #[must_use]
    pub fn captured_at(&self) -> u64 {
        if self.scalars.captured_at == 0 { self.now() } else { self.scalars.captured_at }
    }

    /// Up to `max` octets of the payload from `offset` on. A host call.
    #[must_use]
    pub fn read_payload(&self, offset: u32, max: u32) -> Vec<u8> {
        self.batch().payload(self.index, offset, max)
    }

    /// The body of a chunk. A host call.
    #[must_use]
    pub fn chunk(&self, id: ChunkId) -> Option<Vec<u8>> {
        self.batch().chunk(self.index, id)
    }

    /// The body of a chunk in that form. A host call.
    ///
    /// # Errors
    /// `wrong-width` if its width is not that of the form, `other` if it is no UTF-8.
    pub fn chunk_value(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkValue>, EditError> {
        self.batch().chunk_value(self.index, id, form)
    }

    /// All chunks in order. A host call.
    #[must_use]
    pub fn chunks(&self) -> Vec<Chunk> {
        self.batch().chunks(self.index)
    }

    /// The correlation id. A host call.
    #[must_use]
    pub fn correlation_id(&self) -> Option<Vec<u8>> {
        self.batch().correlation_id(self.index)
    }

    /// The agent's name. A host call.
    #[must_use]
    pub fn agent_name(&self) -> Option<Vec<u8>> {
        self.batch().agent_name(self.index)
    }

    /// The method of SIP, as the host reads it. A host call.
    #[must_use]
    pub fn sip_method(&self) -> Option<String> {
        self.batch().sip_method(self.index)
    }

    /// The value of a SIP header, as the host reads it. A host call.
    #[must_use]
    pub fn sip_header(&self, name: &str) -> Option<Vec<u8>> {
        self.batch().sip_header(self.index, name)
    }

    /// Who sent us the packet. A host call.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.batch().sender(self.index)
    }

    /// Sends the packet as it is now to a collector. It goes on through the chain, too, unless the verdict differs.
    ///
    /// # Errors
    /// As `wit/sending.wit` says: a quota, or a collector that does not keep up.
    pub fn relay(&self, to: &Collector) -> Result<(), SendError> {
        to.relay(self.batch(), self.index)
    }
}

/// Edits: each is a host call, and leaves the packet as it was if it gives an error. `wit/packets.wit` says which.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
impl PacketView<'_> {
    /// Replaces the payload.
    pub fn set_payload(&self, payload: &[u8]) -> Result<(), EditError> {
        self.batch().set_payload(self.index, payload)
    }

    /// Overwrites runs of the payload with one octet.
    pub fn mask(&self, spans: &[Span], fill: u8) -> Result<(), EditError> {
        self.batch().mask(self.index, spans, fill)
    }

    /// Sets a chunk, in place of those of its kind.
    pub fn set_chunk(&self, id: ChunkId, body: &[u8]) -> Result<(), EditError> {
        self.batch().set_chunk(self.index, id, body)
    }

    /// Sets a chunk to a value.
    pub fn set_chunk_value(&self, id: ChunkId, value: &ChunkValue) -> Result<(), EditError> {
        self.batch().set_chunk_value(self.index, id, value)
    }

    /// Adds a chunk at the end.
    pub fn add_chunk(&self, id: ChunkId, body: &[u8]) -> Result<(), EditError> {
        self.batch().add_chunk(self.index, id, body)
    }

    /// Removes all chunks of that id and says how many there were.
    pub fn remove_chunk(&self, id: ChunkId) -> Result<u32, EditError> {
        self.batch().remove_chunk(self.index, id)
    }

    /// Sets addresses and ports of the captured packet.
    pub fn set_flow(&self, source: Endpoint, destination: Endpoint) -> Result<(), EditError> {
        self.batch().set_flow(self.index, source, destination)
    }

    /// Sets the captured packet's IP protocol.
    pub fn set_ip_protocol(&self, ip_protocol: u8) -> Result<(), EditError> {
        self.batch().set_ip_protocol(self.index, ip_protocol)
    }

    /// Says what the payload is.
    pub fn set_payload_type(&self, payload_type: u8) -> Result<(), EditError> {
        self.batch().set_payload_type(self.index, payload_type)
    }

    /// Sets who captured it.
    pub fn set_agent_id(&self, agent_id: u32) -> Result<(), EditError> {
        self.batch().set_agent_id(self.index, agent_id)
    }

    /// Sets when it was captured, in microseconds since the epoch.
    pub fn set_captured_at(&self, captured_at: u64) -> Result<(), EditError> {
        self.batch().set_captured_at(self.index, captured_at)
    }

    /// Sets the correlation id.
    pub fn set_correlation_id(&self, correlation_id: &[u8]) -> Result<(), EditError> {
        self.batch().set_correlation_id(self.index, correlation_id)
    }
}
