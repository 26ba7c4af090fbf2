// Sends the requests of a case by Java's own client, and prints the answers. Arguments: the URL and the case.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;

class Client {
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static final BodyPublisher NONE = BodyPublishers.noBody();

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0], body = "ab".repeat(50_000);
        switch (arguments[1]) {
            case "get" -> send(request(url + "/a/%7Efoo/./b%41?q=%20+&x=%C3%BC").GET());
            case "head" -> send(request(url + "/").method("HEAD", NONE));
            case "post" -> send(request(url + "/").POST(BodyPublishers.ofString(body)));
            case "stream" -> send(request(url + "/").PUT(stream(body)));
            case "delete" -> send(request(url + "/").DELETE());
            case "chunked" -> send(request(url + "/chunked").GET());
            case "headers" -> send(request(url + "/").headers("X-CamelCase", "Yes", "x_under", "1", "Cookie", "a=1; b=2"));
            case "expect" -> send(request(url + "/").expectContinue(true).POST(BodyPublishers.ofString(body)));
            case "http1" -> send(request(url + "/").version(HttpClient.Version.HTTP_1_1).GET());
            case "twice" -> {
                send(request(url + "/first").GET());
                send(request(url + "/second").POST(BodyPublishers.ofString("second")));
            }
            default -> throw new IllegalArgumentException(arguments[1]);
        }
    }

    static HttpRequest.Builder request(String url) {
        return HttpRequest.newBuilder(URI.create(url));
    }

    static BodyPublisher stream(String body) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body.getBytes()));
    }

    static void send(HttpRequest.Builder builder) throws Exception {
        HttpResponse<String> answer = CLIENT.send(builder.build(), BodyHandlers.ofString());
        System.out.println(answer.version() + " " + answer.statusCode() + " " + answer.headers().map());
        System.out.println(answer.body());
    }
}
