// npm's `@mattermost/client`, which the web client is built on, through a proxy: log in, lists, a picture up and down,
// files, events, log out.
//
//     node client.mjs PORT         a proxy that listens on 127.0.0.1:PORT, before the stand-in (`avatar-proxy demo`)

import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import {createRequire} from 'node:module';
import {crc32, deflateSync} from 'node:zlib';

// Both are found from where the script is run.
const require = createRequire(`${process.cwd()}/`);
const {Client4, WebSocketClient} = require('@mattermost/client');
const WebSocket = require('ws');

const PATIENCE = 20_000;
const site = `http://127.0.0.1:${process.argv[2]}`;
const told = (what) => console.log(`client.mjs: ${what}`);

// A picture of one colour.
function png(red, green, blue, edge = 128) {
    const chunk = (kind, body) => {
        const named = Buffer.concat([Buffer.from(kind), body]);
        const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
        length.writeUInt32BE(body.length);
        check.writeUInt32BE(crc32(named));
        return Buffer.concat([length, named, check]);
    };
    const header = Buffer.alloc(13);
    header.writeUInt32BE(edge, 0);
    header.writeUInt32BE(edge, 4);
    header.set([8, 2, 0, 0, 0], 8);
    const row = Buffer.concat([Buffer.from([0]), Buffer.alloc(edge * 3, Buffer.from([red, green, blue]))]);
    const rows = Buffer.concat(Array(edge).fill(row));
    const start = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    return Buffer.concat([start, chunk('IHDR', header), chunk('IDAT', deflateSync(rows)), chunk('IEND', Buffer.alloc(0))]);
}

const client = new Client4();
client.setUrl(site);
const me = await client.login('bob', 'avatar-proxy');
assert.equal(me.username, 'bob');
assert.ok(client.getToken());
told('logged in');

const users = await client.getProfiles(0, 200);
assert.ok(users.length > 10 && users.some((user) => user.id === me.id));
const byId = await client.getProfilesByIds(users.slice(0, 5).map((user) => user.id));
assert.equal(byId.length, 5);
const found = await client.searchUsers('alice', {});
assert.deepEqual(found.map((user) => user.username), ['alice']);
told(`${users.length} users listed, five by id, one found`);

// It is written for browsers.
globalThis.WebSocket = WebSocket;
globalThis.window ??= {addEventListener() {}, removeEventListener() {}};
const events = [];
let heard = () => {};
const socket = new WebSocketClient({newWebSocketFn: (url) => new WebSocket(url, {origin: site})});
socket.addMessageListener((event) => {
    events.push(event);
    heard();
});
const hears = async (name, since) => {
    const late = setTimeout(() => assert.fail(`no ${name}: ${JSON.stringify(events)}`), PATIENCE);
    while (!events.slice(since).some((event) => event.event === name)) {
        await new Promise((resolve) => {
            heard = resolve;
        });
    }
    clearTimeout(late);
};
socket.initialize(`${site.replace('http', 'ws')}/api/v4/websocket`, client.getToken());
await hears('hello', 0);
told('listening');

const look = async (stamp) => {
    const headers = {Authorization: `Bearer ${client.getToken()}`, Accept: 'image/webp,*/*;q=0.8'};
    const answer = await fetch(client.getProfilePictureUrl(me.id, stamp), {headers});
    assert.equal(answer.status, 200);
    return {type: answer.headers.get('content-type'), bytes: Buffer.from(await answer.arrayBuffer())};
};
let before = await look(me.last_picture_update);
for (const colour of [[200, 30, 30], [30, 30, 200]]) {
    const since = events.length;
    const picture = new File([png(...colour)], 'me.png', {type: 'image/png'});
    assert.equal((await client.uploadProfileImage(me.id, picture)).status, 'OK');
    await hears('user_updated', since);
    const {last_picture_update: stamp} = await client.getUser(me.id);
    const shown = [await look(stamp), await look(stamp)];
    assert.ok(shown[0].bytes.equals(shown[1].bytes) && !shown[0].bytes.equals(before.bytes));
    before = shown[0];
}
told(`two pictures uploaded, each heard of and seen as ${before.type}; ${events.length} messages in all`);

const body = Buffer.concat(Array(32768).fill(createHash('sha512').update('seed').digest()));
const form = new FormData();
form.append('channel_id', 'c'.repeat(26));
form.append('files', new File([body], 'two mebibytes.bin'));
const [stored] = (await client.uploadFile(form)).file_infos;
const file = await fetch(client.getFileUrl(stored.id, 0), {headers: {Authorization: `Bearer ${client.getToken()}`}});
assert.ok(Buffer.from(await file.arrayBuffer()).equals(body));
told(`a file of ${body.length} bytes up and down`);

await assert.rejects(client.getPosts('c'.repeat(26)), (error) => error.status_code === 404);
told('a refusal of upstream\'s arrived as one');

const token = client.getToken();
socket.close();
await client.logout();
client.setToken(token);
await assert.rejects(client.getMe(), (error) => error.status_code === 401);
told('logged out');
