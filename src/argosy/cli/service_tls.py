"""`service.tls` of a task file: the certificate and its key are read here, and go to the server alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.cli.session import Session

if TYPE_CHECKING:
    from argosy.api.services import OwnCertificate
    from argosy.model.task import Task


def read_certificate(session: Session, task: Task) -> OwnCertificate | None:
    """The files that the task names; None without any. Errors: "spec-invalid", when they cannot be read, do
    not belong together, or are over."""
    import datetime

    from argosy.api.services import OwnCertificate
    from argosy.gateway.tls import Certificate, Files
    from argosy.model.errors import ArgosyError

    serving = task.service
    if serving is None or not (serving.keyfile or serving.certfile):
        return None
    if not (serving.keyfile and serving.certfile):
        missing = "certfile" if serving.keyfile else "keyfile"
        raise ArgosyError("spec-invalid", f"`service.tls` has no `{missing}`", hint="name both files, in PEM")
    certificate = (session.cwd / serving.certfile).expanduser()
    key = (session.cwd / serving.keyfile).expanduser()
    try:
        Certificate(Files(certificate=str(certificate), key=str(key)), datetime.datetime.now(datetime.UTC))
        return OwnCertificate(certificate=certificate.read_text("ascii"), key=key.read_text("ascii"))
    except (ValueError, OSError) as error:
        raise ArgosyError(
            "spec-invalid",
            str(error),
            hint="`service.tls` names the certificate with its chain (`certfile`) and its key (`keyfile`)",
        ) from None
