package exchange

// IsGRPC reports whether the request is a call of gRPC. gRPC-Web is another
// protocol, whose clients understand statuses of HTTP. CONNECT is none, whatever it
// says: the success that gRPC's errors begin with would open a tunnel.
func (r *Request) IsGRPC() bool {
	const prefix = "application/grpc"
	if r.Connect {
		return false
	}
	t := r.Fields.Get("content-type")
	if len(t) < len(prefix) || !EqualFold(t[:len(prefix)], prefix) {
		return false
	}
	return len(t) == len(prefix) || t[len(prefix)] == '+' || t[len(prefix)] == ';'
}
