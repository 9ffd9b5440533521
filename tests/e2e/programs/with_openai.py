"""URL KEY [GRANT]: a chat by the OpenAI SDK, as a whole and then streamed."""

import sys

import openai


def main(url, key, grant=None):
    tag = {"X-Alter-Grant": grant} if grant else {}
    with openai.OpenAI(base_url=f"{url}/script/openai", api_key=key, default_headers=tag, max_retries=0) as client:
        chat = {"model": "gpt-test", "messages": [{"role": "user", "content": "What is my key?"}]}
        print(client.chat.completions.create(**chat).choices[0].message.content)
        for chunk in client.chat.completions.create(**chat, stream=True):
            print(chunk.choices[0].delta.content, end="")


main(*sys.argv[1:])
