"""Print a .env for docker-compose.yml with fresh random secrets: `python deploy/make_env.py > .env`."""

import secrets

NAMES = ("POSTGRES_PASSWORD", "BROKER_PASSWORD", "STILLHOUSE_SECRET_KEY", "STORE_ACCESS_KEY", "STORE_SECRET_KEY")

if __name__ == "__main__":
    for name in NAMES:
        # Hexadecimal: nothing in it needs quoting in a URL, a shell or JSON.
        print(f"{name}={secrets.token_hex(32)}")
