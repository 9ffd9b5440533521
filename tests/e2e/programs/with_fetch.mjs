// URL KEY [GRANT]: one POST by Node's own fetch (undici), which takes its proxy from the environment.

const [url, key, grant] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}`, ...(grant && { "X-Alter-Grant": grant }) };
const answer = await fetch(`${url}/echo`, { method: "POST", body: "amount=1", headers });
console.log(answer.status, await answer.text());
