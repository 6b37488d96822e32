"""user, project, role: who is there, and who may do what where."""

from __future__ import annotations

import sys

import click

from argosy.cli.session import Session, answering, examples, pass_session
from argosy.cli.signing_in import ask_secret
from argosy.model.errors import ArgosyError


@click.group(epilog=examples("argosy user add ann --role member --project vision", "argosy user ls"))
def user() -> None:
    """Accounts of people and of services."""


@user.command(
    "add",
    epilog=examples(
        'argosy user add ann --name "Ann Arbor" --role member --project vision',
        "argosy user add robot --service",
    ),
)
@click.argument("name")
@click.option("--name", "full_name", default="", help="The full name.")
@click.option("--service", is_flag=True, help="An account of a program: it has tokens and no password.")
@click.option("--no-password", is_flag=True, help="The person signs in elsewhere.")
@click.option("--role", help="Give this role at once.")
@click.option("--project", default="", help="Project of the role; without it, over everything.")
@answering
def user_add(
    session: Session,
    name: str,
    full_name: str,
    service: bool,
    no_password: bool,
    role: str | None,
    project: str,
) -> None:
    """Create an account. The first password is asked for, or generated and shown once."""
    password = shown = ""
    if not service and not no_password:
        password = ask_secret("First password (empty: one is made)") if sys.stdin.isatty() else ""
        if not password:
            password = shown = _make_password()
    view = session.client.add_user(name, full_name, "", service, password)
    if role:
        session.client.set_member(name, role, project)
    if session.screen.told({"user": view, "password": shown}):
        return
    session.screen.print(f"`{name}` has an account.")
    if shown:
        session.screen.print(f"First password, shown once: {shown}")


def _make_password() -> str:
    import secrets

    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


@user.command("ls", epilog=examples("argosy user ls"))
@answering
def user_list(session: Session) -> None:
    """List accounts."""
    reply = session.client.users()
    rows = [
        [
            one.name,
            one.full_name or "-",
            "service" if one.is_service else "person",
            "disabled" if one.is_disabled else "yes" if one.has_second_factor else "-",
            ", ".join(f"{held.role}@{held.project or held.organisation or '*'}" for held in one.roles) or "-",
        ]
        for one in reply.users
    ]
    session.screen.listed(reply, ("NAME", "FULL NAME", "KIND", "SECOND FACTOR", "ROLES"), rows)


@user.command("disable", epilog=examples("argosy user disable ann"))
@click.argument("name")
@pass_session
def user_disable(session: Session, name: str) -> None:
    """Disable an account. Its open connections end within two seconds."""
    session.client.change_user(name, is_disabled=True)
    session.screen.print(f"`{name}` is disabled.")


@user.command("enable", epilog=examples("argosy user enable ann", "argosy user enable ann --without-codes"))
@click.argument("name")
@click.option("--without-codes", is_flag=True, help="Also forget the authenticator app that was lost.")
@pass_session
def user_enable(session: Session, name: str, without_codes: bool) -> None:
    """Enable an account again."""
    session.client.change_user(name, is_disabled=False, drop_second_factor=without_codes)
    session.screen.print(f"`{name}` is enabled.")


@user.command("rm", epilog=examples("argosy user rm ann"))
@click.argument("name")
@pass_session
def user_remove(session: Session, name: str) -> None:
    """Remove an account with its roles and tokens. What it made stays, and its name is never given again."""
    session.client.remove_user(name)
    session.screen.print(f"`{name}` is removed.")


@user.command("password", epilog=examples("argosy user password", "argosy user password ann"))
@click.argument("name", required=False)
@pass_session
def user_password(session: Session, name: str | None) -> None:
    """Set your password, or that of somebody whom you administer. Every sign-in and token of the account
    ends."""
    client = session.client
    old = "" if name else ask_secret("Present password")
    new = ask_secret("New password")
    if sys.stdin.isatty() and ask_secret("New password again") != new:
        raise ArgosyError("usage", "the two differ", hint="type the same twice")
    client.set_password(new, old=old, user=name or "")
    session.screen.print("The password is set; sign in again: `argosy login`.")


@user.command("codes", epilog=examples("argosy user codes"))
@pass_session
def user_codes(session: Session) -> None:
    """Turn on sign-in with one-time codes of an authenticator app."""
    client = session.client
    begun = client.second_factor()
    session.screen.print(f"Type this key into your authenticator app: {begun.key}")
    session.screen.print(f"or open there: {begun.address}")
    client.second_factor(ask_secret("The code that it shows now"))
    session.screen.print("From now on a code is asked for. Sign in again: `argosy login`.")


@click.group(epilog=examples("argosy project create vision", "argosy project ls"))
def project() -> None:
    """Projects, to which clusters, jobs, budgets and secrets belong."""


@project.command(
    "create",
    epilog=examples(
        "argosy project create vision",
        "argosy project create acme --as-organisation",
        "argosy project create vision --organisation acme",
    ),
)
@click.argument("name")
@click.option("--organisation", default="", help="Organisation that it belongs to.")
@click.option("--as-organisation", is_flag=True, help="Create an organisation, which holds projects.")
@click.option("--about", default="", help="What it is for.")
@pass_session
def project_create(session: Session, name: str, organisation: str, as_organisation: bool, about: str) -> None:
    """Make a project."""
    session.client.add_project(name, organisation, about, as_organisation)
    session.screen.print(f"{'Organisation' if as_organisation else 'Project'} `{name}` is made.")


@project.command("ls", epilog=examples("argosy project ls"))
@answering
def project_list(session: Session) -> None:
    """List the projects in which you may see something."""
    reply = session.client.projects()
    rows = [[one.name, one.organisation or "-", one.about or "-"] for one in reply.projects]
    session.screen.listed(reply, ("PROJECT", "ORGANISATION", "ABOUT"), rows)


@project.command("rm", epilog=examples("argosy project rm vision"))
@click.argument("name")
@pass_session
def project_remove(session: Session, name: str) -> None:
    """Remove a project in which nothing runs."""
    session.client.remove_project(name)
    session.screen.print(f"Project `{name}` is removed.")


@click.group(epilog=examples("argosy role give ann member --project vision", "argosy role members"))
def role() -> None:
    """Roles, and who has which."""


@role.command("ls", epilog=examples("argosy role ls", "argosy role ls --json"))
@answering
def role_list(session: Session) -> None:
    """List roles and their permissions; `own` holds only for what the holder made."""
    reply = session.client.roles()
    rows = [
        [
            one.name,
            one.about or "-",
            str(len(one.permissions)) if one.is_built_in else " ".join(one.permissions),
            str(len(one.own)) if one.is_built_in else " ".join(one.own) or "-",
        ]
        for one in reply.roles
    ]
    session.screen.listed(reply, ("ROLE", "ABOUT", "MAY", "OWN"), rows)


@role.command(
    "create",
    epilog=examples(
        "argosy role create on-call --may '*.read' --may jobs.write --about \"ends what runs wild\""
    ),
)
@click.argument("name")
@click.option("--may", "permissions", multiple=True, help="A permission, such as `jobs.write` or `jobs.*`.")
@click.option("--own", multiple=True, help="A permission that holds only for what the holder made.")
@click.option("--about", default="", help="What it is for.")
@pass_session
def role_create(
    session: Session, name: str, permissions: tuple[str, ...], own: tuple[str, ...], about: str
) -> None:
    """Make a role of permissions that you have."""
    session.client.add_role(name, permissions, own, about)
    session.screen.print(f"Role `{name}` is made.")


@role.command("rm", epilog=examples("argosy role rm on-call"))
@click.argument("name")
@pass_session
def role_remove(session: Session, name: str) -> None:
    """Remove a role that somebody made, from everybody who has it."""
    session.client.remove_role(name)
    session.screen.print(f"Role `{name}` is removed.")


@role.command(
    "give",
    epilog=examples(
        "argosy role give ann member --project vision",
        "argosy role give group:research viewer --organisation acme",
        "argosy role give bob owner",
    ),
)
@click.argument("who")
@click.argument("name")
@click.option("--project", default="", help="In this project.")
@click.option("--organisation", default="", help="In every project of this organisation.")
@pass_session
def role_give(session: Session, who: str, name: str, project: str, organisation: str) -> None:
    """Give a user, or a group of the identity provider, a role; without a place: over everything."""
    session.client.set_member(who, name, project, organisation)
    session.screen.print(f"`{who}` is {name} of {project or organisation or 'everything'}.")


@role.command("take", epilog=examples("argosy role take ann member --project vision"))
@click.argument("who")
@click.argument("name")
@click.option("--project", default="", help="In this project.")
@click.option("--organisation", default="", help="In every project of this organisation.")
@pass_session
def role_take(session: Session, who: str, name: str, project: str, organisation: str) -> None:
    """Take a role away. The last owner stays."""
    session.client.set_member(who, name, project, organisation, remove=True)
    session.screen.print(f"`{who}` is no {name} of {project or organisation or 'everything'} any more.")


@role.command("members", epilog=examples("argosy role members --project vision"))
@click.option("--project", default="", help="Only of this project.")
@answering
def role_members(session: Session, project: str) -> None:
    """Show who has which role where."""
    reply = session.client.members(project=project)
    rows = [[one.user, one.role, one.project or one.organisation or "everything"] for one in reply.members]
    session.screen.listed(reply, ("WHO", "ROLE", "WHERE"), rows)
