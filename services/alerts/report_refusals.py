"""Refusals of the worklist and the reports as HTTP statuses: what is not there, what changed meanwhile, what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from services.platform.errors import RefusedError
from services.platform.http import problem

_STATUS = {
    "report.unknown": HTTPStatus.NOT_FOUND,
    "report.unknown_study": HTTPStatus.NOT_FOUND,
    "report.unknown_version": HTTPStatus.NOT_FOUND,
    "report.unknown_form": HTTPStatus.NOT_ACCEPTABLE,
    "report.no_record": HTTPStatus.CONFLICT,
    "report.stale": HTTPStatus.CONFLICT,
    "report.edited": HTTPStatus.CONFLICT,
    "report.critical_undecided": HTTPStatus.CONFLICT,
    "report.not_a_person": HTTPStatus.FORBIDDEN,
    "critical.unknown": HTTPStatus.NOT_FOUND,
    "critical.wrong_state": HTTPStatus.CONFLICT,
}


class RefusalRoute(APIRoute):
    """A route whose refusals carry the status that fits them; the others stay 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except RefusedError as error:
                status = _STATUS.get(error.reason, HTTPStatus.UNPROCESSABLE_ENTITY)
                return problem(
                    status,
                    status.phrase,
                    detail=error.message,
                    reason=error.reason,
                    missing=list(error.missing),
                    remedy=error.remedy,
                    subject=error.subject,
                )

        return answered
