"""A Flask application with Flask-SQLAlchemy: an order is a row and a job, committed together."""

import os

from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from runledger import JobCatalog, JobContext
from runledger.contrib.flask import Runledger, current_ledger, enqueue

db = SQLAlchemy()
catalog = JobCatalog(max_attempts=1)
runledger = Runledger(catalog=catalog)
torn_down: list[str] = []


@catalog.job("shop.receipt")
def send_receipt(context: JobContext, payload: dict) -> dict:
    db.session.execute(text("UPDATE orders SET done = true WHERE email = :to"), {"to": payload["to"]})
    if payload.get("fails"):
        raise ValueError("after the update")
    db.session.commit()
    return {"app": current_app.name, "greeting": current_app.config["GREETING"], "sent_to": payload["to"]}


@catalog.job("shop.finish")
def finish(context: JobContext, payload: dict) -> None:
    db.session.execute(text("UPDATE orders SET done = true"))
    context.finish(db.session, {"finished": True})
    db.session.commit()


def create_app(database_url: str | None = None, name: str = "shop") -> Flask:
    app = Flask(name)
    url = database_url or os.environ["SHOP_DATABASE_URL"]
    app.config["SQLALCHEMY_DATABASE_URI"] = url.replace("postgresql://", "postgresql+psycopg://", 1)
    app.config["GREETING"] = "hello"
    db.init_app(app)
    runledger.init_app(app)

    @app.teardown_appcontext
    def note(error: BaseException | None) -> None:
        torn_down.append(type(error).__name__)

    @app.post("/orders/<email>")
    def order(email: str) -> dict:
        db.session.execute(text("INSERT INTO orders (email) VALUES (:email)"), {"email": email})
        job = enqueue(send_receipt, {"to": email})
        db.session.commit()
        return {"job_id": str(job.job_id)}

    @app.post("/orders/<email>/refused")
    def refused(email: str) -> dict:
        enqueue("shop.receipt", {"to": email})
        raise RuntimeError("changed my mind")

    @app.get("/jobs/<uuid:job_id>")
    def job(job_id: object) -> dict:
        found = current_ledger.get_job(str(job_id))
        return {"status": found.status, "output": found.output}

    return app
