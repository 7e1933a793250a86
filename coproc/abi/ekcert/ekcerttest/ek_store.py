# SPDX-License-Identifier: Apache-2.0
#
# ek_store.py CERTIFICATE STORE: judges an EK certificate (DER) by the rules that
# docs/attestation.md has of keylime, with the library that keylime uses, and without
# its way out for certificates that are malformed. Prints the file of the store that
# vouches for it, and exits with 1 if none does.

import pathlib
import sys

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa


def read(certificate):
    """All that a certificate says must be readable, not only what is looked at."""
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension) and extension.critical:
            sys.exit(f"critical extension {extension.oid.dotted_string} is not known")
    if certificate.serial_number <= 0:
        sys.exit("the serial number is not positive")
    return certificate


def signed_by(certificate, issuer):
    key, scheme = issuer.public_key(), certificate.signature_hash_algorithm
    if not isinstance(scheme, hashes.HashAlgorithm):
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(), scheme)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(scheme))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def main(path, store):
    certificate = read(x509.load_der_x509_certificate(pathlib.Path(path).read_bytes()))
    if not isinstance(certificate.public_key(), (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        sys.exit("the key is neither RSA nor of an elliptic curve")
    for file in sorted(pathlib.Path(store).glob("*.pem")):
        issuer = read(x509.load_pem_x509_certificate(file.read_bytes()))
        if certificate.issuer == issuer.subject and signed_by(certificate, issuer):
            print(file.name)
            return
    sys.exit("no certificate of the store vouches for it")


main(*sys.argv[1:])
