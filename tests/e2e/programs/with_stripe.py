"""URL KEY: a charge by the Stripe SDK."""

import os
import sys

import stripe


def main(url, key):
    stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]  # it looks at no variable itself
    client = stripe.StripeClient(key, base_addresses={"api": f"{url}/script/stripe"})
    charge = client.v1.charges.create({"amount": 1000, "currency": "eur", "source": "tok_visa"})
    print(charge.id, charge.amount, charge.description)


main(*sys.argv[1:])
