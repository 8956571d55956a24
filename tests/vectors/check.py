#!/usr/bin/env python3
"""Check the test vectors of proto/PROTOCOL.md with a second implementation.

This shares no code with the daemon: the Noise handshake, the key schedule, the protobuf encoding
and XChaCha20 are written out here, from the specification. X25519 and ChaCha20-Poly1305 are those
of the Python package `cryptography` (Debian: python3-cryptography); nothing else is needed.

    tests/vectors/check.py            compare with the file; exit 1 when something differs
    tests/vectors/check.py --print    print the block as this implementation computes it
"""

import base64
import hashlib
import hmac
import pathlib
import re
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PROTOCOL = pathlib.Path(__file__).resolve().parents[2] / "proto" / "PROTOCOL.md"


def public(secret):
    key = X25519PrivateKey.from_private_bytes(secret).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def dh(secret, peer):
    return X25519PrivateKey.from_private_bytes(secret).exchange(
        X25519PublicKey.from_public_bytes(peer)
    )


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(salt, secret, purpose, context, length):
    """RFC 5869, one block; `info` as in section 2.2."""
    info = b"qanah\x01" + bytes([len(purpose)]) + purpose + context
    return mac(mac(salt, secret), info + b"\x01")[:length]


# XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): HChaCha20, then the ordinary construction.


def hchacha20(key, nonce):
    def rotate(value, by):
        return (value << by | value >> (32 - by)) & 0xFFFFFFFF

    x = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def quarter(a, b, c, d):
        for first, second, third, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[first] = (x[first] + x[second]) & 0xFFFFFFFF
            x[third] = rotate(x[third] ^ x[first], by)

    for _ in range(10):
        for at in range(4):
            quarter(at, at + 4, at + 8, at + 12)
        for at in range(4):
            quarter(at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4)
    return struct.pack("<8I", *x[:4], *x[12:])


def xchacha_seal(key, nonce, text, aad):
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], text, aad)


# Protobuf, as far as it is needed. Fields with the value zero or empty are left out.


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(tag, value):
    return varint(tag << 3) + varint(value) if value else b""


def fixed32(tag, value):
    return varint(tag << 3 | 5) + struct.pack("<I", value) if value else b""


def data(tag, value):
    return varint(tag << 3 | 2) + varint(len(value)) + value if value else b""


def candidate(kind, priority, address, port):
    return struct.pack(">BI", kind, priority) + address + struct.pack(">H", port)


def description(ufrag, pwd, fingerprint, role, port, size, index, capabilities, candidates):
    return (
        data(1, ufrag) + data(2, pwd) + data(3, fingerprint) + number(4, role) + number(5, port)
        + number(6, size) + fixed32(7, index) + data(8, capabilities)
        + b"".join(data(9, item) for item in candidates)
    )


class Noise:
    """Noise_KKpsk0_25519_ChaChaPoly_SHA256, one side (Noise specification, revision 34)."""

    def __init__(self, initiator, prologue, static, remote, psk, ephemeral):
        name = b"Noise_KKpsk0_25519_ChaChaPoly_SHA256"
        self.ck = self.h = hashlib.sha256(name).digest()
        self.initiator, self.psk = initiator, psk
        self.s, self.rs, self.e, self.re = static, remote, ephemeral, None
        own = public(static)
        self.mix_hash(prologue)
        self.mix_hash(own if initiator else remote)
        self.mix_hash(remote if initiator else own)

    def mix_hash(self, value):
        self.h = hashlib.sha256(self.h + value).digest()

    def outputs(self, value, count):
        temp, out, last = mac(self.ck, value), [], b""
        for at in range(count):
            last = mac(temp, last + bytes([at + 1]))
            out.append(last)
        return out

    def mix_key(self, value):
        self.ck, self.k = self.outputs(value, 2)

    def mix_key_and_hash(self, value):
        self.ck, mixed, self.k = self.outputs(value, 3)
        self.mix_hash(mixed)

    def token_e(self, key):
        self.mix_hash(key)
        self.mix_key(key)  # Since the pattern has a preshared key.

    def dh_tokens(self, first):
        """Message 1: es, ss. Message 2: ee, se."""
        ours_and_theirs = {
            "es": (self.e, self.rs) if self.initiator else (self.s, self.re),
            "se": (self.s, self.re) if self.initiator else (self.e, self.rs),
            "ss": (self.s, self.rs),
            "ee": (self.e, self.re),
        }
        for token in ("es", "ss") if first else ("ee", "se"):
            self.mix_key(dh(*ours_and_theirs[token]))

    def write(self, first, payload):
        if first:
            self.mix_key_and_hash(self.psk)
        key = public(self.e)
        self.token_e(key)
        self.dh_tokens(first)
        sealed = ChaCha20Poly1305(self.k).encrypt(bytes(12), payload, self.h)
        self.mix_hash(sealed)
        return key + sealed

    def read(self, first, message):
        if first:
            self.mix_key_and_hash(self.psk)
        self.re, sealed = message[:32], message[32:]
        self.token_e(self.re)
        self.dh_tokens(first)
        payload = ChaCha20Poly1305(self.k).decrypt(bytes(12), sealed, self.h)
        self.mix_hash(sealed)
        return payload

    def split(self):
        return self.outputs(b"", 2)


def frame(key, kind, index, counter, text):
    header = bytes([kind, 0, 0, 0]) + struct.pack(">IQ", index, counter)
    return header + ChaCha20Poly1305(key).encrypt(bytes(4) + struct.pack("<Q", counter), text, header)


def text(head, *parts):
    """A text that people carry: section 5.7."""
    body = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    body += hashlib.sha256(head + body).digest()[:4]
    return head + base64.urlsafe_b64encode(body).rstrip(b"=") + b"."


def compute():
    v = {}
    a, b = (bytes.fromhex(text) for text in (  # RFC 7748, section 6.1
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    ))
    pub_a, pub_b, psk = public(a), public(b), bytes(range(32))
    v["a.secret"], v["b.secret"], v["a.public"], v["b.public"], v["psk"] = a, b, pub_a, pub_b, psk
    ss = v["ss"] = dh(a, pub_b)
    assert ss == dh(b, pub_a) and pub_b > pub_a
    for name, context in (("a-to-b", pub_a + pub_b), ("b-to-a", pub_b + pub_a)):
        inbox = v["inbox." + name] = hkdf(b"", ss, b"inbox", context, 16)
        v["topic." + name] = b"qanah/1/" + inbox.hex().encode()
        v["signal." + name] = hkdf(psk, ss, b"signal", context, 32)
        v["hand." + name] = hkdf(b"", ss, b"hand", context, 32)

    challenge, echo = bytes([0xC1] * 16), bytes([0xC2] * 16)
    nonce = bytes(range(0x40, 0x58))
    hello = data(1, data(1, challenge) + data(2, echo))
    v["hello.challenge"], v["hello.echo"], v["hello.message"] = challenge, echo, hello
    v["envelope.nonce"] = nonce
    v["hello.associated-data"] = b"\x01\x01" + v["inbox.b-to-a"]
    v["hello.envelope"] = b"\x01" + nonce + xchacha_seal(
        v["signal.b-to-a"], nonce, hello, v["hello.associated-data"])

    session = v["session"] = bytes(range(0x10, 0x20))
    capabilities = number(1, 65535) + number(2, 64) + number(3, 1)
    offered = v["description.offer"] = description(
        b"xJ4n+Q2a", b"bT7/kQmZ0aWcE5xVhL9uR3yD", bytes([0xA5] * 32), 0, 5000, 262144, 0x01020304,
        capabilities, [
            candidate(1, 2130706431, bytes([192, 0, 2, 10]), 49152),
            candidate(1, 2130706175, bytes.fromhex("20010db8000000000000000000000010"), 49153),
            candidate(2, 1694498815, bytes([198, 51, 100, 7]), 61000),
        ])
    answered = v["description.answer"] = description(
        b"Wq3z", b"0a1b2c3d4e5f6g7h8i9j0k", bytes([0x5A] * 32), 1, 5000, 65536, 0x0A0B0C0D,
        b"", [candidate(4, 16777215, bytes([203, 0, 113, 5]), 3478)])

    prologue = v["prologue"] = b"qanah\x01\x01" + session + pub_b + pub_a
    e_i, e_r = bytes([0x21] * 32), bytes([0x42] * 32)
    v["ephemeral.initiator"], v["ephemeral.responder"] = e_i, e_r
    initiator = Noise(True, prologue, b, pub_a, psk, e_i)
    responder = Noise(False, prologue, a, pub_b, psk, e_r)
    one = v["noise.1"] = initiator.write(True, offered)
    assert responder.read(True, one) == offered
    two = v["noise.2"] = responder.write(False, answered)
    assert initiator.read(False, two) == answered
    assert initiator.h == responder.h and initiator.split() == responder.split()
    offer = data(2, data(1, session) + data(2, echo) + data(3, one))
    v["offer.message"] = offer
    v["offer.envelope"] = b"\x01" + nonce + xchacha_seal(
        v["signal.b-to-a"], nonce, offer, b"\x01\x01" + v["inbox.b-to-a"])
    answer = v["answer.message"] = data(3, data(1, session) + data(2, two))
    v["answer.manual-envelope"] = b"\x01" + nonce + xchacha_seal(
        v["signal.a-to-b"], nonce, answer, b"\x01\x00manual")
    v["answer.label"] = mac(v["hand.a-to-b"], nonce)[:4]
    v["answer.text"] = text(b"qanah-answer-1.", v["answer.label"] + v["answer.manual-envelope"])

    v["hash"] = initiator.h
    v["split.initiator"], v["split.responder"] = initiator.split()
    for purpose in ("channel", "datagram", "bye", "restart"):
        for side in ("initiator", "responder"):
            v[f"{purpose}.{side}"] = hkdf(
                initiator.h, v["split." + side], purpose.encode(), b"", 32)
    v["frame.plaintext"] = b"\x02" + struct.pack(">Q", 0x0123456789ABCDEF)
    v["frame"] = frame(v["channel.initiator"], 0xC3, 0x0A0B0C0D, 0x102, v["frame.plaintext"])
    v["bye.mac"] = mac(v["bye.initiator"], session)[:16]
    ufrag, pwd = b"Rst1", b"0123456789abcdefghijKL"
    v["restart.input"] = (
        session + struct.pack(">I", 1) + bytes([len(ufrag)]) + ufrag + bytes([len(pwd)]) + pwd)
    v["restart.mac"] = mac(v["restart.initiator"], v["restart.input"])[:16]

    # Both sides' new indices travel in the messages of a rekey.
    prologue = v["rekey.prologue"] = (
        b"qanah\x01\x04" + session + pub_b + pub_a + struct.pack(">I", 1))
    e_i, e_r = bytes([0x63] * 32), bytes([0x84] * 32)
    v["rekey.ephemeral.initiator"], v["rekey.ephemeral.responder"] = e_i, e_r
    initiator = Noise(True, prologue, b, pub_a, psk, e_i)
    responder = Noise(False, prologue, a, pub_b, psk, e_r)
    one = v["rekey.noise.1"] = initiator.write(True, bytes.fromhex("11121314"))
    assert responder.read(True, one) == bytes.fromhex("11121314")
    two = v["rekey.noise.2"] = responder.write(False, bytes.fromhex("21222324"))
    assert initiator.read(False, two) == bytes.fromhex("21222324")
    assert initiator.h == responder.h and initiator.split() == responder.split()
    for side, key in zip(("initiator", "responder"), initiator.split()):
        v["rekey.channel." + side] = hkdf(initiator.h, key, b"channel", b"", 32)
    init = b"\x04" + struct.pack(">I", 1) + one
    v["rekey.init.frame"] = frame(v["channel.initiator"], 0xC3, 0x0A0B0C0D, 0x103, init)
    relayed(v, session, (a, b), (challenge, echo))
    return v


def relayed(v, session, secrets, challenges):
    """A session by a relay: section 13."""
    (a, b), psk = secrets, v["psk"]
    pub_a, pub_b = public(a), public(b)
    for name, key in (("a", pub_a), ("b", pub_b)):
        v["name." + name] = hashlib.sha256(b"qanah peer" + key).digest()[:16]
    challenge, echo = challenges
    v["relayed.hello.message"] = data(6, data(1, data(1, challenge) + data(2, echo)))
    capabilities = number(1, 65567) + number(2, 128) + number(7, 1)
    offered = v["relayed.description.offer"] = fixed32(7, 0x31323334) + data(8, capabilities)
    answered = v["relayed.description.answer"] = fixed32(7, 0x41424344)
    prologue = v["relayed.prologue"] = b"qanah\x01\x03" + session + pub_b + pub_a
    e_i, e_r = bytes([0xA5] * 32), bytes([0xC6] * 32)
    v["relayed.ephemeral.initiator"], v["relayed.ephemeral.responder"] = e_i, e_r
    initiator = Noise(True, prologue, b, pub_a, psk, e_i)
    responder = Noise(False, prologue, a, pub_b, psk, e_r)
    one = v["relayed.noise.1"] = initiator.write(True, offered)
    assert responder.read(True, one) == offered
    two = v["relayed.noise.2"] = responder.write(False, answered)
    assert initiator.read(False, two) == answered
    v["relayed.offer.message"] = data(6, data(2, data(1, session) + data(2, echo) + data(3, one)))
    for side, key in zip(("initiator", "responder"), initiator.split()):
        v["relayed.channel." + side] = hkdf(initiator.h, key, b"channel", b"", 32)
    inner = v["relayed.frame"] = frame(v["relayed.channel.initiator"], 0xC3, 0x41424344, 0, b"\x01")
    v["relayed.to-relay"] = b"\x01" + v["name.a"] + inner
    v["relayed.from-relay"] = b"\x02" + v["name.b"] + inner
    v["signaling.to-relay"] = b"\x08\x01" + v["name.a"] + v["hello.envelope"]
    v["signaling.from-relay"] = b"\x08\x02" + v["name.b"] + v["hello.envelope"]
    v["reach.query"] = b"\x0a" + struct.pack(">I", 7) + v["name.a"] + v["name.b"]
    v["reach.answer"] = b"\x0b" + struct.pack(">I", 7) + v["name.a"] + struct.pack(">I", 1500)


def main():
    computed = compute()
    if sys.argv[1:] == ["--print"]:
        for name, value in computed.items():
            print(name, "=", value.hex())
        return 0
    block = re.search(r"^```vectors\n(.*?)^```", PROTOCOL.read_text(), re.S | re.M).group(1)
    lines = [line for line in block.splitlines() if line and not line.startswith("#")]
    written = dict(line.split(" = ") for line in lines)
    wrong = [name for name in computed if written.get(name) != computed[name].hex()]
    wrong += [name for name in written if name not in computed]
    for name in wrong:
        print(f"{name}: the file says {written.get(name)}, computed was "
              f"{computed[name].hex() if name in computed else 'nothing'}")
    print(f"{len(computed)} vectors computed, {len(wrong)} differ")
    return 1 if wrong else 0


sys.exit(main())
