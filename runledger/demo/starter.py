"""The jobs of this application: two handlers, and a workflow of three steps.

runledger worker --app jobs:catalog
runledger enqueue greet '{"name": "Ada"}' --app jobs:catalog --wait
python jobs.py
"""

from dataclasses import dataclass

from runledger import JobCatalog, JobContext, JobFailure, Ledger, WorkflowRunRequest, output_of

catalog = JobCatalog(max_attempts=3, timeout_seconds=30)


@dataclass(frozen=True)
class Greeting:
    name: str


@dataclass(frozen=True)
class Letter:
    text: str
    copies: int = 1


@catalog.job("greet")
def greet(context: JobContext, payload: Greeting) -> dict[str, str]:
    if not payload.name.strip():
        raise JobFailure.terminal("greet.no_name", "whom?")  # final: trying again cannot help
    return {"text": f"Hello, {payload.name}!"}


@catalog.job("print")
def print_letter(context: JobContext, payload: Letter) -> dict[str, int]:
    for copy in range(payload.copies):
        context.progress(done=copy + 1, total=payload.copies)
    return {"pages": payload.copies}


def welcome(name: str) -> WorkflowRunRequest:
    """Greet, print what was said, and print it twice more once that worked. The last step is the result."""
    said = output_of("greet", "text")
    return (
        catalog.workflow("welcome")
        .job("greet", greet, Greeting(name))
        .job("proof", print_letter, {"text": said})
        .after_success("proof", ["greet"])
        .job("copies", print_letter, {"text": said, "copies": 2})
        .after_success("copies", ["greet", "proof"])
        .result_step("copies")
        .build()
    )


if __name__ == "__main__":
    with Ledger.from_env() as ledger:
        run = ledger.enqueue_workflow_run(welcome("Ada"))
        print(ledger.wait_for_workflow_result(run.run_id, timeout_seconds=60))
