"""Upload a text; a worker counts its words; the page shows the result."""

import os

from flask import Flask, abort, redirect, render_template_string, request, url_for
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, mapped_column

from runledger import JobCatalog, JobContext, JobFailure, JobNotFound
from runledger.contrib.flask import Runledger, current_ledger, enqueue

db = SQLAlchemy()
catalog = JobCatalog(max_attempts=5, timeout_seconds=30)
runledger = Runledger(catalog=catalog)

PAGE = """
<title>Uploads</title>
<form method="post" enctype="multipart/form-data"><input type="file" name="file"><button>Upload</button></form>
<ul>
{% for upload in uploads %}
  <li><a href="{{ url_for('show', upload_id=upload.id) }}">{{ upload.name }}</a>:
    {{ "counting" if upload.words is none else "%d words" % upload.words }}</li>
{% endfor %}
</ul>
"""


class Upload(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    text: Mapped[str]
    words: Mapped[int | None]
    job_id: Mapped[str | None]


@catalog.job("upload.count")
def count_words(context: JobContext, payload: dict) -> None:
    upload = db.session.get(Upload, payload["upload_id"])
    if upload is None:
        raise JobFailure.terminal("upload.gone", "the upload was deleted")
    upload.words = len(upload.text.split())
    context.finish(db.session, {"words": upload.words})
    db.session.commit()  # the row and the end of the job: one commit, or neither


def create_app() -> Flask:
    app = Flask(__name__)
    url = os.environ["RUNLEDGER_DATABASE_URL"]
    app.config["SQLALCHEMY_DATABASE_URI"] = url.replace("postgresql://", "postgresql+psycopg://", 1)
    app.config["MAX_CONTENT_LENGTH"] = 1_000_000
    db.init_app(app)
    runledger.init_app(app)

    @app.get("/")
    def index() -> str:
        uploads = db.session.scalars(db.select(Upload).order_by(Upload.id.desc()).limit(50))
        return render_template_string(PAGE, uploads=uploads)

    @app.post("/")
    def store() -> object:
        file = request.files["file"]
        upload = Upload(name=file.filename or "unnamed", text=file.read().decode(errors="replace").replace("\0", ""))
        db.session.add(upload)
        db.session.flush()  # the row has its id
        upload.job_id = str(enqueue(count_words, {"upload_id": upload.id}).job_id)
        db.session.commit()  # the row and the job: one commit, or neither
        return redirect(url_for("show", upload_id=upload.id))

    @app.get("/uploads/<int:upload_id>")
    def show(upload_id: int) -> dict:
        upload = db.get_or_404(Upload, upload_id)
        try:
            job = current_ledger.get_job(upload.job_id)
        except JobNotFound:  # pruned since
            abort(404)
        return {"name": upload.name, "words": upload.words, "job": job.status, "attempt": job.attempt}

    @app.cli.command("create-tables")
    def create_tables() -> None:
        db.create_all()

    return app
