/** What the image says and serves: everything in it that does not come from Debian. */

export const NGINX_CONF = `user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;

events {
    worker_connections 256;
}

http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    server_tokens off;
    sendfile on;
    client_body_temp_path /var/cache/nginx/client;
    proxy_temp_path /var/cache/nginx/proxy;
    fastcgi_temp_path /var/cache/nginx/fastcgi;
    uwsgi_temp_path /var/cache/nginx/uwsgi;
    scgi_temp_path /var/cache/nginx/scgi;

    server {
        listen 8443 ssl;
        ssl_certificate /run/secrets/tls.crt;
        ssl_certificate_key /run/secrets/tls.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        root /var/www/html;
        index index.html;
    }
}
`

export const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Caisson</title>
<h1>Served from inside a caisson</h1>
<p>This page comes from a signed image that was verified, mounted and started inside the virtual machine.
The key of this connection was released to that machine after it had proved what it runs.</p>
</html>
`

export const PASSWD = `root:x:0:0:root:/root:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`

export const GROUP = `root:x:0:
www-data:x:33:
nogroup:x:65534:
`

/** glibc reads these files itself; every other source would need a library that the image does not carry. */
export const NSSWITCH = `passwd: files
group: files
hosts: files dns
`

export const CONFIG: Readonly<Record<string, unknown>> = {
  User: '0:0',
  ExposedPorts: { '8443/tcp': {} },
  Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
  Entrypoint: ['nginx', '-g', 'daemon off;'],
  WorkingDir: '/',
  StopSignal: 'SIGQUIT',
  Labels: { 'org.opencontainers.image.title': 'nginx from Debian packages' },
}
