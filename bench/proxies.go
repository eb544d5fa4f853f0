package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/weirmesh/weir/bench/measure"
)

// proxy is one that can be measured.
type proxy struct {
	name  string
	hosts int
	over  over // how it is loaded
	// start starts it as a plain reverse proxy for the upstream.
	start func(context.Context, *contender, place) error
}

// place is what a proxy gets to work in.
type place struct {
	dir      string
	port     int
	upstream string
}

// proxies is everyone, in the order of the table, and of being loaded: those that
// are compared stand next to each other.
var proxies = []proxy{
	{name: "Traefik", start: startTraefik},
	{name: "HAProxy", start: startHAProxy},
	{name: "Caddy", start: startCaddy},
	{name: weirKeyed, start: startWeir(consumers), over: overKey},
	{name: "nginx", start: startNginx},
	{name: weirCatchAll, start: startWeir(catchAll)},
	{name: weirTransform, start: startWeir(policies(1))},
	{name: weirChain, start: startWeir(policies(5))},
	{name: weirFewHosts, start: startWeir(manyHosts), hosts: 10},
	{name: weirManyHosts, start: startWeir(manyHosts), hosts: 10_000},
	{name: weirTLS, start: startWeir(secure(catchAllRoute)), over: overTLS},
	{name: "nginx TLS", start: startNginxTLS, over: overTLS},
	{name: "nginx HTTP/2", start: startNginxTLS, over: overHTTP2},
	{name: weirHTTP2, start: startWeir(secure(catchAllRoute)), over: overHTTP2},
	{name: "Caddy HTTP/2", start: startCaddyTLS, over: overHTTP2},
	{name: weirHTTP3, start: startWeir(secure(catchAllRoute)), over: overHTTP3},
	{name: "Caddy HTTP/3", start: startCaddyTLS, over: overHTTP3},
	{name: weirGRPC, start: startWeir(calls), over: overGRPC},
	{name: "Caddy gRPC", start: startCaddyGRPC, over: overGRPC},
}

// lookUp finds a program beside this one's sources or on the machine.
func lookUp(name string) (string, error) {
	for _, path := range []string{filepath.Join(".bin", name), filepath.Join("/usr/sbin", name)} {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return filepath.Abs(path)
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", errors.New("it is not installed (make bench-peers)")
	}
	return path, nil
}

// configure writes a configuration, with the place filled in.
func (p place) configure(file, text string) (string, error) {
	text = strings.NewReplacer("{DIR}", p.dir, "{PORT}", fmt.Sprint(p.port), "{UPSTREAM}", p.upstream, "{WORKERS}", measure.Workers).Replace(text)
	path := filepath.Join(p.dir, file)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// run starts a program by its name, with its home in the place.
func (p place) run(c *contender, program string, args ...string) error {
	path, err := lookUp(program)
	if err != nil {
		return err
	}
	home := []string{"HOME=" + p.dir, "XDG_CONFIG_HOME=" + p.dir, "XDG_DATA_HOME=" + p.dir}
	c.process, err = measure.Start(p.dir, home, path, args...)
	return err
}

func startNginx(_ context.Context, c *contender, p place) error {
	return p.runNginx(c, "listen 127.0.0.1:{PORT};")
}

func startNginxTLS(_ context.Context, c *contender, p place) error {
	if err := p.certificate(); err != nil {
		return err
	}
	return p.runNginx(c, `
    listen 127.0.0.1:{PORT} ssl http2;
    ssl_certificate {DIR}/certificate.pem;
    ssl_certificate_key {DIR}/key.pem;
    http2_max_concurrent_streams 1000;`)
}

func (p place) runNginx(c *contender, listen string) error {
	// Its defaults close a connection after 1,000 requests, on both sides, and
	// speak HTTP/1.0 to the upstream.
	config := `
worker_processes {WORKERS};
daemon off;
pid {DIR}/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path {DIR}/body;
  proxy_temp_path {DIR}/proxy;
  fastcgi_temp_path {DIR}/fastcgi;
  uwsgi_temp_path {DIR}/uwsgi;
  scgi_temp_path {DIR}/scgi;
  keepalive_requests 100000000;
  upstream books { server {UPSTREAM}; keepalive 256; keepalive_requests 100000000; }
  server {
    {LISTEN}
    location / {
      proxy_pass http://books;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
    }
  }
}
`
	if os.Geteuid() == 0 {
		config = "user root;" + config
	}
	path, err := p.configure("nginx.conf", strings.Replace(config, "{LISTEN}", listen, 1))
	if err != nil {
		return err
	}
	return p.run(c, "nginx", "-e", "stderr", "-p", p.dir, "-c", path)
}

func startHAProxy(_ context.Context, c *contender, p place) error {
	path, err := p.configure("haproxy.cfg", `
global
  nbthread {WORKERS}
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend public
  bind 127.0.0.1:{PORT}
  default_backend books
backend books
  server one {UPSTREAM} pool-max-conn -1
`)
	if err != nil {
		return err
	}
	return p.run(c, "haproxy", "-db", "-f", path)
}

func startCaddy(_ context.Context, c *contender, p place) error {
	return p.runCaddy(c, "http://127.0.0.1:{PORT}", "", "{UPSTREAM}")
}

// startCaddyTLS starts it with a certificate that it need not ask anyone for.
func startCaddyTLS(_ context.Context, c *contender, p place) error {
	if err := p.certificate(); err != nil {
		return err
	}
	return p.runCaddy(c, "https://"+benchHost+":{PORT}", "tls {DIR}/certificate.pem {DIR}/key.pem", "{UPSTREAM}")
}

func startCaddyGRPC(_ context.Context, c *contender, p place) error {
	return p.runCaddy(c, "http://:{PORT}", "", "h2c://{UPSTREAM}")
}

func (p place) runCaddy(c *contender, site, more, upstream string) error {
	// It keeps 32 idle connections to an upstream unless told.
	path, err := p.configure("Caddyfile", `
{
	admin off
	auto_https off
	servers {
		protocols h1 h2 h2c h3
	}
}
`+site+` {
	bind 127.0.0.1
	`+more+`
	reverse_proxy `+upstream+` {
		transport http {
			keepalive_idle_conns_per_host 256
			`+caddyVersions(upstream)+`
		}
	}
}
`)
	if err != nil {
		return err
	}
	return p.run(c, "caddy", "run", "--config", path, "--adapter", "caddyfile")
}

// caddyVersions says what it speaks to the upstream.
func caddyVersions(upstream string) string {
	if strings.HasPrefix(upstream, "h2c://") {
		return "versions h2c 2"
	}
	return ""
}

func startTraefik(_ context.Context, c *contender, p place) error {
	_, err := p.configure("routes.yaml", `
http:
  routers:
    all: {rule: "PathPrefix(`+"`/`"+`)", service: books, entryPoints: [public]}
  services:
    books: {loadBalancer: {servers: [{url: "http://{UPSTREAM}"}]}}
`)
	if err != nil {
		return err
	}
	path, err := p.configure("traefik.yaml", `
global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
entryPoints: {public: {address: "127.0.0.1:{PORT}"}}
serversTransport: {maxIdleConnsPerHost: 256}
providers: {file: {filename: "{DIR}/routes.yaml", watch: false}}
`)
	if err != nil {
		return err
	}
	return p.run(c, "traefik", "--configFile="+path)
}
