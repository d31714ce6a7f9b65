"""Google Drive as a client sees it, on this machine: a proxy that answers for its two hosts, with TLS of its own.

The real client runs unchanged (its proxy and certificate come from the environment), so the addresses that it builds,
the confirm page that it reads and the ranges that it asks for are its own.
"""

import datetime as dt
import re
import ssl
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = ("drive.google.com", "drive.usercontent.google.com")
# On one line, as Google writes it and gdown reads it.
CONFIRM_PAGE = (
    "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    '<p class="uc-warning-caption">Google Drive can\'t scan this file for viruses.</p>'
    '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="submit" id="uc-download-link" value="Download anyway"/>'
    '<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">'
    '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="0-1-2"></form></body></html>'
)
QUOTA_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>"""


class DriveStandIn:
    """files: id -> bytes; any other id gets a page without a link, an id in `full` the quota's page.

    requests: id -> the Range of each request for its bytes. cut: ids whose first whole answer breaks off half-way.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.full: set[str] = set()
        self.cut: set[str] = set()
        self.requests: dict[str, list[str | None]] = defaultdict(list)
        self.certificate = folder / "drive.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _write_certificate(self.certificate)
        context.load_cert_chain(self.certificate)
        drive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            host = ""

            def do_CONNECT(self):
                self.host = self.path.split(":")[0]
                self.send_response(200)
                self.end_headers()
                if self.host not in HOSTS:
                    self.close_connection = True
                    return
                self.connection = context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                self.close_connection = False

            def do_GET(self):
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                file = query.get("id", "")
                if self.host == HOSTS[0]:
                    self.send_response(303)
                    self.send_header("Location", f"https://{HOSTS[1]}/download?id={file}&export=download")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif file in drive.full:
                    self.answer(QUOTA_PAGE)
                elif file not in drive.files:
                    self.answer("<html><title>Error 404 (Not Found)</title></html>", 404)
                elif query.get("confirm") != "t":
                    self.answer(CONFIRM_PAGE.format(id=file))
                else:
                    self.send_file(file, drive.files[file])

            def answer(self, page, status=200):
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page.encode())

            def send_file(self, file, content):
                asked = self.headers.get("Range")
                drive.requests[file].append(asked)
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
                self.send_response(206 if asked else 200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Disposition", 'attachment; filename="subject1.tar"')
                self.send_header("Content-Length", str(len(content) - start))
                if asked:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                breaks_off = file in drive.cut and not asked
                try:
                    self.wfile.write(content[start : len(content) // 2 if breaks_off else None])
                except OSError:  # a client that has looked at the headers alone
                    self.close_connection = True
                if breaks_off:
                    self.close_connection = True

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.proxy = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def environment(self) -> dict[str, str]:
        """What sends a client here: the usual variables of a proxy and of its certificate."""
        proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.proxy)
        return proxies | {"REQUESTS_CA_BUNDLE": str(self.certificate), "NO_PROXY": "", "no_proxy": ""}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _write_certificate(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
