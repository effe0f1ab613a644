import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

/** Posts a body to an address with the client that comes with Java, which asks for HTTP/2 by an `Upgrade` header. */
class Post {
    public static void main(String[] arguments) throws Exception {
        byte[] body = arguments[1].getBytes();
        BodyPublisher[] publishers = {
            BodyPublishers.ofByteArray(body),
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)), // in chunks
            BodyPublishers.ofByteArray(body),
        };
        for (int index = 0; index < publishers.length; index++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("Content-Type", "application/json")
                .expectContinue(index == 2)
                .POST(publishers[index])
                .build();
            System.out.println(HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body());
        }
    }
}
