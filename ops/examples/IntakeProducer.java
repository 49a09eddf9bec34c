// An internal producer in Java: one CreatePayment to payments.intake, with nothing but Kafka's own client.
//
//   javac -cp kafka-clients.jar IntakeProducer.java
//   java -cp kafka-clients.jar:slf4j-api.jar:. IntakeProducer HOST:PORT ca.pem bundle.pem SCHEMA_ID mer_... order-4711 2500 USD
//
// bundle.pem holds the key (PKCS8, unencrypted), the certificate and its authority. SCHEMA_ID is the id of the subject
// payments.intake-CreatePayment in the registry; a program that publishes more than one type uses its registry's
// serializer instead of writing the Avro body itself, which for one flat record is these few lines.
// The same reference is the same payment. What the fields mean and where refusals appear: ops/intake/README.md.

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Arrays;
import java.util.Properties;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

public final class IntakeProducer {
    private static final String TOPIC = "payments.intake";
    private static final long EXPIRES_AFTER_US = 24L * 3_600 * 1_000_000;
    private static final String LETTERS = "abcdefghijklmnopqrstuvwxyz234567";

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 8) {
            System.err.println("BOOTSTRAP CA BUNDLE SCHEMA_ID MERCHANT REFERENCE AMOUNT CURRENCY");
            System.exit(2);
        }
        String merchant = arguments[4];
        String payment = paymentId(merchant, arguments[5]);
        byte[] value = command(
                Integer.parseInt(arguments[3]), payment, merchant, Long.parseLong(arguments[6]), arguments[7]);
        try (var producer = new KafkaProducer<String, byte[]>(settings(arguments[0], arguments[1], arguments[2]))) {
            var placed = producer.send(new ProducerRecord<>(TOPIC, payment, value)).get();
            System.out.printf(
                    "{\"payment_id\": \"%s\", \"partition\": %d, \"offset\": %d}%n",
                    payment, placed.partition(), placed.offset());
        }
    }

    private static Properties settings(String bootstrap, String ca, String bundle) {
        var settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("security.protocol", "SSL");
        settings.put("ssl.truststore.type", "PEM");
        settings.put("ssl.truststore.location", ca);
        settings.put("ssl.keystore.type", "PEM");
        settings.put("ssl.keystore.location", bundle);
        settings.put("acks", "all");
        settings.put("enable.idempotence", true);
        settings.put("key.serializer", StringSerializer.class.getName());
        settings.put("value.serializer", ByteArraySerializer.class.getName());
        return settings;
    }

    /** The Confluent wire format: a zero byte, the schema's id, the Avro body, field by field in the schema's order. */
    private static byte[] command(int schemaId, String payment, String merchant, long amount, String currency) {
        long now = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
        var out = new ByteArrayOutputStream();
        out.write(0);
        out.writeBytes(ByteBuffer.allocate(4).putInt(schemaId).array());
        text(out, "cmd_" + payment.substring(4)); // id: the same for each attempt
        text(out, "payment.create");
        number(out, now); // occurred_at
        text(out, "internal-producer"); // actor.identity
        text(out, "service"); // actor.role
        text(out, "req_" + UUID.randomUUID().toString().replace("-", ""));
        number(out, 0); // traceparent: null, the first branch
        number(out, 0); // reply_to: null
        text(out, payment);
        text(out, merchant);
        number(out, amount);
        text(out, currency);
        number(out, 0); // personal_data: null
        text(out, "k1"); // client_secret_key_id: the platform's current one
        number(out, now + EXPIRES_AFTER_US);
        number(out, 0); // idempotency: null
        return out.toByteArray();
    }

    /** Avro's long: zigzag, seven bits a byte, the lowest first. */
    private static void number(ByteArrayOutputStream out, long value) {
        long left = (value << 1) ^ (value >> 63);
        while ((left & ~0x7FL) != 0) {
            out.write((int) ((left & 0x7F) | 0x80));
            left >>>= 7;
        }
        out.write((int) left);
    }

    private static void text(ByteArrayOutputStream out, String value) {
        byte[] bytes = value.getBytes(StandardCharsets.UTF_8);
        number(out, bytes.length);
        out.writeBytes(bytes);
    }

    /** pay_ and 16 bytes that the merchant and the reference determine, in 26 letters of base32. */
    private static String paymentId(String merchant, String reference) throws Exception {
        byte[] digest = MessageDigest.getInstance("SHA-256")
                .digest(("intake/" + merchant + "/" + reference).getBytes(StandardCharsets.UTF_8));
        byte[] data = Arrays.copyOf(digest, 16);
        var id = new StringBuilder("pay_");
        for (int bit = 0; bit < 128; bit += 5) {
            int letter = 0;
            for (int i = bit; i < bit + 5; i++) {
                int set = i < 128 ? (data[i / 8] >> (7 - i % 8)) & 1 : 0;
                letter = letter << 1 | set;
            }
            id.append(LETTERS.charAt(letter));
        }
        return id.toString();
    }
}
