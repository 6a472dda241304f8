"""The shop's addresses: decode, call, draw. A request from htmx gets a fragment, any other a whole page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Path, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from adapters.errors import NotFound, Unavailable
from adapters.pages import EventStream, message
from adapters.web import draining, uuid7
from feature_repo.events import ID_PATTERN, is_id
from services.shop import basket, pages
from services.shop.explain import Why, why
from services.shop.pictures import picture
from services.shop.shop import Shop, Visitor

MONTH_S: Final = 30 * 24 * 3600
OF_AGE: Final = "of_age"
MOST_STREAMS: Final = 500
ItemId = Annotated[str, Path(pattern=ID_PATTERN, description="an item of the catalogue")]
FormItem = Annotated[str, Form(pattern=ID_PATTERN, description="an item of the catalogue")]
FormRequest = Annotated[str | None, Form(pattern=ID_PATTERN, description="the feed that it was seen in")]
ELSEWHERE: Final[dict[int | str, dict[str, Any]]] = {303: {"description": "Where to go on", "content": {}}}
router = APIRouter(default_response_class=HTMLResponse)


class Svg(Response):
    media_type = "image/svg+xml"


def the_shop(request: Request) -> Shop:
    shop: Shop = request.app.state.shop
    return shop


def the_visitor(request: Request) -> Visitor | None:
    user_id, session_id = request.cookies.get("shopper", ""), request.cookies.get("session", "")
    if not is_id(user_id):
        return None
    device = "phone" if "Mobi" in request.headers.get("user-agent", "") else "desktop"
    of_age = request.cookies.get(OF_AGE) == "yes"
    return Visitor(user_id, session_id if is_id(session_id) else f"s-{uuid7()}", device, of_age)


def a_visitor(request: Request) -> Visitor:
    """The visitor; whoever has not chosen one yet is a passer-by with an id of this request alone."""
    return the_visitor(request) or Visitor(f"v-{uuid7()}", f"s-{uuid7()}", "other")


Shops = Annotated[Shop, Depends(the_shop)]
Visitors = Annotated[Visitor, Depends(a_visitor)]


def draw(request: Request, fragment: str, page: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A fragment for htmx, else the page around it."""
    name = fragment if "hx-request" in request.headers else page
    visitor = the_visitor(request)
    lines = values.pop("lines", None)
    cart = basket.read(request.cookies.get(basket.COOKIE, "")) if lines is None else lines
    around = {
        "fragment": fragment,
        "whole": name == page,
        "shopper": visitor.user_id if visitor else None,
        "of_age": visitor.of_age if visitor else False,
        "cart_count": sum(cart.values()),
    }
    html = the_shop(request).templates.get_template(name).render(**around, **values)
    return HTMLResponse(html, status)


@router.get("/", summary="The feed, or the choice of a shopper")
async def home(request: Request, shop: Shops) -> Response:
    visitor = the_visitor(request)
    if visitor is None:
        return welcome(request, shop)
    live = await shop.watch.now(visitor.user_id)
    return draw(request, "_home.html", "home.html", live=live, recent=_recent(shop, live), **await _feed(shop, visitor))


@router.get("/welcome", summary="Choose a shopper")
def welcome(request: Request, shop: Shops) -> Response:
    found = [
        (s, [item.title for i in s.recent if (item := shop.catalogue.get(i)) is not None])
        for s in shop.suggestions.all()
    ]
    return draw(request, "_welcome.html", "welcome.html", suggestions=found, pattern=ID_PATTERN)


@router.post(
    "/shopper",
    summary="Become a shopper, or a new visitor when no id is given",
    status_code=303,
    response_class=RedirectResponse,
)
def choose(user_id: Annotated[str | None, Form(pattern=ID_PATTERN)] = None) -> Response:
    answer = RedirectResponse("/", 303)
    _remember(answer, "shopper", user_id or f"visitor-{uuid7()[-12:]}")
    _remember(answer, "session", f"s-{uuid7()}", None)
    answer.delete_cookie(basket.COOKIE)
    answer.delete_cookie(OF_AGE)
    return answer


@router.post(
    "/age", summary="Say whether you are of age", status_code=303, response_class=RedirectResponse, responses=ELSEWHERE
)
def say_age(of_age: Annotated[bool, Form(description="whether products for adults may be shown")]) -> Response:
    answer = RedirectResponse("/", 303)
    _remember(answer, OF_AGE, "yes" if of_age else "no")
    return answer


@router.get("/feed", summary="The feed alone")
async def feed(request: Request, shop: Shops, visitor: Visitors) -> Response:
    return draw(request, "_feed.html", "page.html", title="Your feed", **await _feed(shop, visitor))


async def _feed(shop: Shop, visitor: Visitor) -> dict[str, Any]:
    try:
        return {"feed": await shop.feed(visitor), "trouble": None}
    except Unavailable as error:
        return {"feed": None, "trouble": error.detail}


@router.get(
    "/products/{item_id}",
    responses=ELSEWHERE,
    summary="A product; with a feed's request id, opening it counts as a click",
)
async def product(
    request: Request,
    shop: Shops,
    visitor: Visitors,
    item_id: ItemId,
    r: Annotated[str | None, Query(pattern=ID_PATTERN, description="request id of the feed")] = None,
    p: Annotated[int | None, Query(ge=1, le=200, description="position in the feed")] = None,
    opened: Annotated[bool, Query(description="whether the click is already counted")] = False,
) -> Response:
    listed = shop.item(item_id)
    trouble = None
    if r and not opened and request.headers.get("sec-purpose") is None:
        trouble = await shop.open_product(visitor, listed, r, p)
        if "hx-request" not in request.headers and trouble is None:
            return RedirectResponse(f"/products/{item_id}?r={r}&opened=1", 303)
    shown = pages.product(listed, item_id, position=p)
    return draw(request, "_product.html", "page.html", title=listed.title, product=shown, feed_id=r, trouble=trouble)


@router.get("/why/{feed_id}/{item_id}", summary="Why this product was in that feed")
async def explain(
    request: Request, shop: Shops, feed_id: Annotated[str, Path(pattern=ID_PATTERN)], item_id: ItemId
) -> Response:
    listed, trouble = shop.catalogue.get(item_id), None
    found = Why(item_id, None, known=False)
    try:
        found = why(await shop.recommender.decision(feed_id), item_id)
    except NotFound:
        trouble = "This decision is not found: it is too old, or the recommender was restarted before it was stored."
    except Unavailable as error:
        trouble = error.detail
    shown = pages.product(listed, item_id)
    return draw(
        request,
        "_why.html",
        "page.html",
        title=f"Why {shown.title}?",
        why=found,
        product=shown,
        feed_id=feed_id,
        trouble=trouble,
    )


@router.get("/cart", summary="The cart")
def cart(request: Request, shop: Shops) -> Response:
    return _cart(request, shop, basket.read(request.cookies.get(basket.COOKIE, "")))


@router.post("/cart", responses=ELSEWHERE, summary="Put a product into the cart")
async def add(
    request: Request, shop: Shops, visitor: Visitors, item_id: FormItem, request_id: FormRequest = None
) -> Response:
    listed = shop.item(item_id)
    lines = basket.added(basket.read(request.cookies.get(basket.COOKIE, "")), item_id)
    trouble = await shop.add(visitor, listed, request_id)
    return _kept(request, lines, _cart(request, shop, lines, said=f"{listed.title} is in your cart.", trouble=trouble))


@router.post("/cart/remove", responses=ELSEWHERE, summary="Take a product out of the cart")
def remove(request: Request, shop: Shops, item_id: FormItem) -> Response:
    lines = basket.removed(basket.read(request.cookies.get(basket.COOKIE, "")), item_id)
    return _kept(request, lines, _cart(request, shop, lines))


@router.post("/buy", summary="Order and pay for what is in the cart")
async def buy(request: Request, shop: Shops, visitor: Visitors) -> Response:
    cart_lines = basket.read(request.cookies.get(basket.COOKIE, ""))
    lines = {item_id: q for item_id, q in cart_lines.items() if shop.catalogue.get(item_id) is not None}
    if not lines:
        return _cart(request, shop, {})
    try:
        order_id, amount = await shop.buy(visitor, lines)
    except Unavailable:
        trouble = "The order could not be placed: the event collector is away. Your cart is kept; try again soon."
        return _cart(request, shop, lines, trouble=trouble)
    answer = draw(request, "_thanks.html", "page.html", title="Thank you", lines={}, order_id=order_id, amount=amount)
    answer.delete_cookie(basket.COOKIE)
    return answer


def _cart(
    request: Request, shop: Shop, lines: dict[str, int], said: str | None = None, trouble: str | None = None
) -> HTMLResponse:
    found, total = shop.cart(lines)
    return draw(
        request,
        "_cart.html",
        "page.html",
        title="Your cart",
        lines=lines,
        cart=found,
        total=total,
        said=said,
        trouble=trouble,
    )


def _kept(request: Request, lines: dict[str, int], drawn: HTMLResponse) -> Response:
    answer: Response = drawn if "hx-request" in request.headers else RedirectResponse("/cart", 303)
    _remember(answer, basket.COOKIE, basket.write(lines))
    return answer


def _remember(answer: Response, name: str, value: str, seconds: int | None = MONTH_S) -> None:
    answer.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax", path="/")


@router.get("/pictures/{item_id}.svg", response_class=Svg, summary="A drawn picture of a product")
def drawn(shop: Shops, item_id: ItemId) -> Response:
    listed = shop.catalogue.get(item_id)
    svg = picture(item_id, listed.category if listed else "Unknown")
    return Svg(svg, headers={"Cache-Control": "public, max-age=3600"})


@router.get(
    "/stream",
    response_class=EventStream,
    responses={204: {"description": "No shopper chosen, or too many streams"}},
    summary="Server-sent events: the strip of live features, and when to draw the feed again",
)
async def stream(request: Request, shop: Shops) -> Response:
    visitor = the_visitor(request)
    open_now: set[object] = request.app.state.__dict__.setdefault("streams", set())
    if visitor is None or len(open_now) >= MOST_STREAMS:
        return Response(status_code=204)
    me = object()

    async def messages() -> AsyncIterator[str]:
        open_now.add(me)
        strip = shop.templates.get_template("_strip.html")
        try:
            yield ": hello\n\n"
            async for change, live in shop.watch.changes(visitor.user_id, lambda: draining(request)):
                if change == "beat":
                    yield ": beat\n\n"
                    continue
                yield message("strip", strip.render(live=live, recent=_recent(shop, live)))
                if change == "feed":
                    yield message("feed", "changed")
        finally:
            open_now.discard(me)

    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return EventStream(messages(), headers=headers)


def _recent(shop: Shop, live: Any) -> list[pages.Product]:
    """The last products that the features remember of a shopper, newest first."""
    ids = list((live or {}).get("user_recent_items") or ())[:6]
    return [pages.product(listed, i) for i in ids if (listed := shop.catalogue.get(i)) is not None]
