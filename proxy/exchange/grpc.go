package exchange

// IsGRPC reports whether the request is a call of gRPC. gRPC-Web is another
// protocol, whose clients understand statuses of HTTP.
func (r *Request) IsGRPC() bool {
	const prefix = "application/grpc"
	t := r.Fields.Get("content-type")
	if len(t) < len(prefix) || !EqualFold(t[:len(prefix)], prefix) {
		return false
	}
	return len(t) == len(prefix) || t[len(prefix)] == '+' || t[len(prefix)] == ';'
}
