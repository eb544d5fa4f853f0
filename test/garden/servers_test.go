package garden

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
	"github.com/weirmesh/weir/test/edge"
)

// server is one that grows in the garden.
type server struct {
	name, binary string
	// configure writes its configuration and returns how it is started in the
	// foreground.
	configure func(p plot) (args, env []string)
}

// plot is what a server is given: a place, a port, and whom to ask.
type plot struct {
	t               *testing.T
	dir             string
	address, origin string
}

func (p plot) port() string { _, port, _ := net.SplitHostPort(p.address); return port }

func (p plot) write(name, text string) (path string) {
	p.t.Helper()
	path = filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	_, originPort, _ := net.SplitHostPort(p.origin)
	text = strings.NewReplacer("DIR", p.dir, "LISTEN", p.address, "PORT", p.port(), "ORIGIN-PORT", originPort, "ORIGIN", p.origin, "OWNER", owner()).Replace(text)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// owner is whom a server is to run as, where it would give up being root: it
// could not write to the test's directory.
func owner() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

var servers = []server{
	{"nginx", "nginx", nginx},
	{"haproxy", "haproxy", haproxy},
	{"apache", "apache2", apache},
	{"lighttpd", "lighttpd", lighttpd},
	{"h2o", "h2o", h2o},
	{"tomcat", "/usr/share/tomcat10/bin/catalina.sh", tomcat},
}

func nginx(p plot) (args, env []string) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := p.write("nginx.conf", user+`
daemon off; worker_processes 1; pid DIR/pid; error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off; client_max_body_size 0; keepalive_requests 100000; large_client_header_buffers 4 64k;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  upstream witness { server ORIGIN; keepalive 8; }
  server {
    listen LISTEN;
    location / { proxy_pass http://witness; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off; }
  }
}`)
	return []string{"-p", p.dir, "-c", conf, "-e", "stderr"}, nil
}

func haproxy(p plot) (args, env []string) {
	return []string{"-db", "-f", p.write("haproxy.cfg", `
global
  maxconn 1000
  tune.bufsize 80000
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend f
  bind LISTEN
  default_backend b
backend b
  http-reuse always
  server witness ORIGIN
`)}, nil
}

func apache(p plot) (args, env []string) {
	return []string{"-DFOREGROUND", "-d", p.dir, "-f", p.write("apache.conf", `
ServerName localhost
Listen LISTEN
PidFile DIR/pid
Mutex file:DIR default
ErrorLog /dev/stderr
LogLevel crit
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
MaxKeepAliveRequests 0
KeepAliveTimeout 60
LimitRequestFieldSize 65536
AllowEncodedSlashes NoDecode
ProxyRequests Off
ProxyPreserveHost On
ProxyPass / http://ORIGIN/ nocanon
`)}, nil
}

func lighttpd(p plot) (args, env []string) {
	return []string{"-D", "-f", p.write("lighttpd.conf", `
server.bind = "127.0.0.1"
server.port = PORT
server.document-root = "DIR"
server.errorlog = "/dev/stderr"
server.upload-dirs = ( "DIR" )
server.modules = ( "mod_proxy" )
server.max-keep-alive-requests = 100000
server.http-parseopts = ( "method-get-body" => "enable" )
server.stream-request-body = 1
server.stream-response-body = 1
proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => ORIGIN-PORT )) )
`)}, nil
}

func h2o(p plot) (args, env []string) {
	return []string{"-m", "worker", "-c", p.write("h2o.conf", `
user: OWNER
num-threads: 1
listen: {host: 127.0.0.1, port: PORT}
temp-buffer-path: DIR
error-log: /dev/stderr
hosts:
  default:
    paths:
      /:
        proxy.reverse.url: http://ORIGIN/
        proxy.preserve-host: ON
`)}, nil
}

// echo.jsp is Tomcat's witness. An error page may be asked by any method.
const echoPage = `<%@ page isErrorPage="true" trimDirectiveWhitespaces="true" import="java.security.MessageDigest" %><%
MessageDigest d = MessageDigest.getInstance("SHA-256");
byte[] b = new byte[8192];
java.io.InputStream in = request.getInputStream();
for (int n; (n = in.read(b)) > 0; ) d.update(b, 0, n);
StringBuilder hex = new StringBuilder();
for (byte x : d.digest()) hex.append(String.format("%02x", x));
String query = request.getQueryString();
response.setStatus(200);
response.setHeader("X-Saw", request.getMethod() + " " + request.getRequestURI() + (query == null ? "" : "?" + query) + " " + hex);
out.print("seen");
if ("chunked".equals(request.getParameter("as"))) { response.flushBuffer(); out.flush(); out.print(" by Tomcat"); }
%>`

func tomcat(p plot) (args, env []string) {
	p.write("conf/server.xml", `<Server port="-1"><Service name="Catalina">
<Connector address="127.0.0.1" port="PORT" protocol="HTTP/1.1" maxKeepAliveRequests="-1" maxHttpRequestHeaderSize="80000" relaxedPathChars='"[]^|{}' encodedSolidusHandling="passthrough"/>
<Engine name="Catalina" defaultHost="localhost"><Host name="localhost" appBase="webapps" deployOnStartup="true">
<Valve className="org.apache.catalina.valves.AccessLogValve" directory="DIR" prefix="access" suffix="" rotatable="false" buffered="false" pattern="%m %U"/>
</Host></Engine>
</Service></Server>`)
	p.write("conf/web.xml", `<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
<servlet><servlet-name>jsp</servlet-name><servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class></servlet>
</web-app>`)
	p.write("webapps/ROOT/WEB-INF/web.xml", `<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
<servlet><servlet-name>echo</servlet-name><jsp-file>/echo.jsp</jsp-file></servlet>
<servlet-mapping><servlet-name>echo</servlet-name><url-pattern>/*</url-pattern></servlet-mapping>
</web-app>`)
	p.write("webapps/ROOT/echo.jsp", echoPage)
	for _, dir := range []string{"logs", "temp", "work"} {
		_ = os.MkdirAll(filepath.Join(p.dir, dir), 0o755)
	}
	return []string{"run"}, []string{"CATALINA_HOME=/usr/share/tomcat10", "CATALINA_BASE=" + p.dir, "CATALINA_OPTS=-Xmx128m"}
}

// plant starts a server that asks origin, or skips where there is none.
func plant(t *testing.T, s server, origin string) (address string) {
	t.Helper()
	binary := find(s.binary)
	if binary == "" {
		t.Skipf("%s is not installed: make garden installs it", s.name)
	}
	p := plot{t: t, dir: t.TempDir(), address: freeport.Address(t), origin: origin}
	args, env := s.configure(p)
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // what answers by itself keeps a log
		if log, err := os.ReadFile(filepath.Join(p.dir, "access")); err == nil && strings.Contains(string(log), " /admin") {
			t.Errorf("%s was smuggled a request", s.name)
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", s.name, said.String())
		}
	})
	for end := time.Now().Add(edge.Patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", p.address)
		if err == nil {
			_, _ = io.WriteString(c, "GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			answer, _ := io.ReadAll(c)
			c.Close()
			if strings.HasPrefix(string(answer), "HTTP/1.1 200") {
				return p.address
			}
			err = fmt.Errorf("it answers %q", answer)
		}
		select {
		case exit := <-ended:
			ended <- exit
			t.Fatalf("%s ended: %v", s.name, exit)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %v", s.name, err)
		}
	}
}

// find knows where Debian keeps servers.
func find(binary string) string {
	for _, dir := range []string{"", "/usr/sbin/", "/usr/bin/"} {
		if path, err := exec.LookPath(dir + binary); err == nil {
			return path
		}
	}
	return ""
}
